-- Chooses a node for a prompt by what all gateways know, and lets the choice count at once.
--
-- KEYS  1 pending   hash: node -> uncached prompt tokens sent to it whose first byte has not come; "#node" -> of how many
--       2 entries   hash: id -> "tokens|node", each of what makes up `pending`
--       3 expiry    sorted set: id -> when it stops to count (a gateway that died takes nothing back)
--       4 last      string: "tokens|milliseconds|node", where the conversation was last
-- ARGV  1 id, 2 tokens of the prompt, 3 seconds that `last` is kept, 4 seconds that a full node is worse by, 5 thrift,
--       then for each candidate, in the conversation's own order: name, seconds per token, crowd, seconds since its caches began
-- Returns the candidate's number (from 1), the tokens expected in its cache, the tokens ahead of it, and the reason
-- (0 new, 1 home, 2 moved). The formula is that of core/routing/selection.py. Called again with the same id, it chooses nothing.

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, 32)) do
  drop(id)
end
drop(ARGV[1])

local prompt, keep = tonumber(ARGV[2]), tonumber(ARGV[3])
local load_penalty, thrift = tonumber(ARGV[4]), tonumber(ARGV[5])
local left, age, home = 0, 0, nil
local last = redis.call('GET', KEYS[4])
if last then
  local tokens, at, node = last:match('^(%d+)|(%d+)|(.*)$')
  left, age, home = math.min(tonumber(tokens), prompt), (now - tonumber(at)) / 1000, node
end

local best, shortest, cached, before = 1, math.huge, 0, 0
for number = 1, (#ARGV - 5) / 4 do
  local at = 4 * number + 1
  local node, pace, crowd, warm = ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local held = (node == home and age <= warm) and left or 0
  local tokens = tonumber(redis.call('HGET', KEYS[1], node) or 0)
  local prompts = tonumber(redis.call('HGET', KEYS[1], '#' .. node) or 0)
  local ahead = prompts > 0 and tokens - tokens / (2 * prompts) or 0
  local wait = (ahead + thrift * (prompt - held)) * pace + crowd * load_penalty
  if wait < shortest then
    best, shortest, cached, before = number, wait, held, ahead
  end
end

local node, work = ARGV[4 * best + 2], prompt - cached
redis.call('HINCRBY', KEYS[1], node, work)
redis.call('HINCRBY', KEYS[1], '#' .. node, 1)
redis.call('HSET', KEYS[2], ARGV[1], work .. '|' .. node)
-- Three times what it should take, and half a minute: what is later is late for other reasons.
redis.call('ZADD', KEYS[3], now + 30000 + math.floor(3000 * math.min(shortest, 1200)), ARGV[1])
redis.call('SET', KEYS[4], prompt .. '|' .. now .. '|' .. node, 'PX', math.floor(keep * 1000))
return { best, cached, math.floor(before), home == nil and 0 or (home == node and 1 or 2) }
