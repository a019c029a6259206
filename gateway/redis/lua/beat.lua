-- A gateway process lives. KEYS[1]: sorted set of processes by the time (ms) until which they count.
-- ARGV: the process, for how long it counts from now (ms; 0: it leaves). Returns how many live.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if ARGV[2] == '0' then
  redis.call('ZREM', KEYS[1], ARGV[1])
else
  count_until(KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
  redis.call('PEXPIRE', KEYS[1], 60000)
end
return redis.call('ZCARD', KEYS[1])
