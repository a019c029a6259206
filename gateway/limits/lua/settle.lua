-- Make a reservation what was really used.
-- ARGV: id, time to live (ms), the n rules (JSON: scope, field, kind, limit, capacity of each), n amounts used.
-- Returns now (us).
local id = ARGV[1]
local rules = cjson.decode(ARGV[3])
local n = #ARGV - 3
local record = redis.call('HGET', held, id)
if record == 's' then return now end
load(rules, n)
local before = record and #record > 1 and cmsgpack.unpack(record)
for i = 1, n do
  local r = (i - 1) * 5
  local scope, field, kind = rules[r + 1], rules[r + 2], rules[r + 3]
  local limit, capacity, used = rules[r + 4], rules[r + 5], tonumber(ARGV[3 + i])
  if before then
    local j = (i - 1) * 7
    adjust(scope, field, kind, limit, capacity, (kind == 'l' and 0 or used) - before[j + 6], before[j + 7])
  elseif kind ~= 'l' then
    take(scope, field, kind, limit, capacity, used)
  end
end
redis.call('HSET', held, id, 's')
redis.call('ZADD', leases, now_ms + KEPT, id)
write(ARGV[2])
return now
