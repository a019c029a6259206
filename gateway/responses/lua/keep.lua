-- Keep a turn. A turn that is kept already is left as it is.
-- KEYS: the conversation's turns, the tenant's conversations, their sizes.
-- ARGV: conversation, turn, the turn before it ('' where there is none), the digest that that one has to have ('' any),
--   record, time to live (ms), bytes that the tenant may have, bytes that a turn takes beside its record, and those of
--   one that goes on from none.
-- Returns an outcome (1 kept, 0 no room, 2 the turn before it is not there, or is another), conversations evicted,
--   bytes that the tenant has.
local turns, conversations, sizes = KEYS[1], KEYS[2], KEYS[3]
local conversation, turn, before, digest, record = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local ttl, most = tonumber(ARGV[6]), tonumber(ARGV[7])
local cost = #record + tonumber(before == '' and ARGV[9] or ARGV[8])
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local base = turns:sub(1, #turns - #conversation)

local function size_of(field) return tonumber(redis.call('HGET', sizes, field) or 0) end

local function forget(other)
  redis.call('PEXPIRE', base .. other, 0)
  redis.call('ZREM', conversations, other)
  redis.call('HINCRBY', sizes, 'total', -size_of(other))
  redis.call('HDEL', sizes, other)
end

-- Its key expires by Redis; some of those that did are taken off the books with each call.
for _, other in ipairs(redis.call('ZRANGEBYSCORE', conversations, '-inf', now, 'LIMIT', 0, 20)) do forget(other) end

local total = size_of('total')
if redis.call('HEXISTS', turns, turn) == 1 then return {1, 0, total} end
if before ~= '' then
  local found = redis.call('HGET', turns, before) or redis.call('HGET', turns, '-' .. before)
  if not found or (digest ~= '' and found:sub(17, 32) ~= digest) then return {2, 0, total} end
end

local evicted = 0
if size_of(conversation) + cost > most then
  if before ~= '' or cost > most then return {0, 0, total} end
  forget(conversation) -- it is full of what this turn does not go on from
  evicted, total = 1, size_of('total')
end
while total + cost > most do
  local oldest = redis.call('ZRANGEBYSCORE', conversations, '-inf', '+inf', 'LIMIT', 0, 2)
  local other = oldest[1] == conversation and oldest[2] or oldest[1]
  if not other or evicted == 500 then return {0, evicted, total} end
  forget(other)
  evicted = evicted + 1
  total = size_of('total')
end
redis.call('HSET', turns, turn, record)
if before ~= '' then redis.call('HINCRBY', turns, 'n' .. before, 1) end
redis.call('PEXPIRE', turns, ttl)
redis.call('ZADD', conversations, now + ttl, conversation)
redis.call('HINCRBY', sizes, conversation, cost)
total = redis.call('HINCRBY', sizes, 'total', cost)
-- The books outlive what is in them, also what was kept when the time to live was longer.
local later = redis.call('ZRANGEBYSCORE', conversations, string.format('(%d', now + ttl), '+inf', 'LIMIT', 0, 1)
if #later == 0 then
  redis.call('PEXPIRE', conversations, ttl)
  redis.call('PEXPIRE', sizes, ttl)
end
return {1, evicted, total}
