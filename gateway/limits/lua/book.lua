-- What the scripts share; gateway/core/limits/tenant_limits.py tells the rules, and says the same in Python.
--
-- Keys of one tenant, all in one slot by the braces in KEYS[1] = fg1:{tenant}, from which the others are made:
--   fg1:{tenant}:SCOPE     hash: a limit's FIELD is its level or count, FIELD@ the time (us) or period that it is of
--   fg1:{tenant}:held      hash: request id -> its reservation, packed; or 's' settled, 'x' expired
--   fg1:{tenant}:leases    sorted set: request id -> the time (ms) at which its state ends
-- All of them expire when nobody has come for a day (32 days where months are counted).

local base = KEYS[1]
local held, leases = base .. ':held', base .. ':leases'
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local now_ms = math.floor(now / 1000)
local KEPT, MOURNED = 15000, 3600000

-- The UTC month as year * 12 + month, January being 0 (Hinnant's civil_from_days, as in core/limits/rules.py).
local function month_of(days)
  local shifted = days + 719468
  local era = math.floor(shifted / 146097)
  local doe = shifted - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  return (era * 400 + yoe) * 12 + math.floor((5 * doy + 2) / 153) + 2
end

local day = math.floor(clock[1] / 86400)
local month

local function period_of(kind)
  if kind == 'd' then return day end
  if kind == 'm' then
    month = month or month_of(day)
    return month
  end
  return 0
end

-- What scopes' hashes hold, as far as it was read, and the fields that changed: each hash is read once and written once.
local state, changed = {}, {}

-- Read all that the n rules stand for (five words each: scope, field, kind, limit, capacity).
local function load(rules, n)
  local wanted = {}
  for r = 1, n * 5, 5 do
    local scope, field = rules[r], rules[r + 1]
    local names = wanted[scope]
    if not names then
      names = {}
      wanted[scope] = names
    end
    names[#names + 1] = field
    names[#names + 1] = field .. '@'
  end
  for scope, names in pairs(wanted) do
    local found = redis.call('HMGET', base .. ':' .. scope, unpack(names))
    local fields = state[scope] or {}
    state[scope] = fields
    for i = 1, #names do
      if fields[names[i]] == nil then fields[names[i]] = tonumber(found[i]) or false end
    end
  end
end

local function note(scope, field, value, at)
  local fields, new = state[scope], changed[scope]
  if not new then
    new = {}
    changed[scope] = new
  end
  local of = field .. '@'
  fields[field], fields[of] = value, at
  new[field], new[of] = value, at
end

local function read(scope, field)
  local fields = state[scope]
  if not fields then
    fields = {}
    state[scope] = fields
  end
  local of = field .. '@'
  if fields[field] == nil then
    local found = redis.call('HMGET', base .. ':' .. scope, field, of)
    fields[field], fields[of] = tonumber(found[1]) or false, tonumber(found[2]) or false
  end
  return fields[field], fields[of] or 0
end

local function write(ttl)
  for scope, fields in pairs(changed) do
    local flat = {}
    for field, value in pairs(fields) do
      flat[#flat + 1] = field
      flat[#flat + 1] = value
    end
    local key = base .. ':' .. scope
    redis.call('HSET', key, unpack(flat))
    redis.call('PEXPIRE', key, ttl)
  end
  redis.call('PEXPIRE', held, ttl)
  redis.call('PEXPIRE', leases, ttl)
end

-- The level of a bucket now. One of a time to come (the clock has gone back) is one of now, and is written as that: until
-- then nothing would come in.
local function filled(scope, field, level, at, limit, capacity)
  if at > now then note(scope, field, level, now) else level = level + (now - at) * limit end
  return math.min(level, capacity)
end

-- What is left of a limit now: level of the bucket, or limit less count. Also the time that goes with it.
local function left_of(scope, field, kind, limit, capacity)
  local value, at = read(scope, field)
  if kind == 'b' then
    if not value then return capacity, now end
    return filled(scope, field, value, at, limit, capacity), now
  end
  local period = period_of(kind)
  if not value or (kind ~= 'l' and at ~= period) then return limit, period end
  return limit - value, period
end

local function take(scope, field, kind, limit, capacity, cost)
  local left, at = left_of(scope, field, kind, limit, capacity)
  if kind == 'b' then
    note(scope, field, left - cost, at)
  else
    note(scope, field, limit - left + cost, at)
  end
end

-- Take `change` more of what was reserved in `period`; give it back where it is negative.
local function adjust(scope, field, kind, limit, capacity, change, period)
  local value, at = read(scope, field)
  if not value then return end
  if kind == 'b' then
    note(scope, field, math.min(capacity, filled(scope, field, value, at, limit, capacity) - change), now)
  elseif at == period then -- that of leases is always 0
    note(scope, field, value + change, at)
  end
end

-- Give back what is held by leases that ran out; forget what ended long ago.
local function sweep()
  local ids = redis.call('ZRANGEBYSCORE', leases, '-inf', now_ms, 'LIMIT', 0, 1000)
  if #ids == 0 then return end
  local records = redis.call('HMGET', held, unpack(ids))
  local ended = {}
  for i, id in ipairs(ids) do
    local record = records[i]
    if record and #record > 1 then
      local r = cmsgpack.unpack(record)
      for j = 1, #r, 7 do
        adjust(r[j], r[j + 1], r[j + 2], r[j + 3], r[j + 4], -r[j + 5], r[j + 6])
      end
      redis.call('HSET', held, id, 'x')
      redis.call('ZADD', leases, now_ms + MOURNED, id)
    else
      ended[#ended + 1] = id
    end
  end
  if #ended > 0 then
    redis.call('ZREM', leases, unpack(ended))
    redis.call('HDEL', held, unpack(ended))
  end
end
