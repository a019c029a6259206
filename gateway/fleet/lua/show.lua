-- Lays down what one gateway process sees of the fleet, and returns what the others see.
--
-- KEYS  1 views   hash: process -> its view
--       2 until   sorted set: process -> when its view does not count any more, by this server's clock
-- ARGV  1 process, 2 milliseconds for which its view counts, 3 the view ('': it leaves), 4 whether the others' are wanted

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now)) do
  redis.call('HDEL', KEYS[1], gone)
  redis.call('ZREM', KEYS[2], gone)
end

if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
  redis.call('ZADD', KEYS[2], now + ARGV[2], ARGV[1])
  redis.call('PEXPIRE', KEYS[1], 6 * ARGV[2])
  redis.call('PEXPIRE', KEYS[2], 6 * ARGV[2])
end

local others = {}
if ARGV[4] == '1' then
  local all = redis.call('HGETALL', KEYS[1])
  for at = 1, #all, 2 do
    if all[at] ~= ARGV[1] then
      others[#others + 1] = all[at + 1]
    end
  end
end
return others
