-- Keeps sessions of the console, or which of them were ended: the hash goes with the last of them.
--
-- KEYS  1 hash: id of a session -> what is kept of it
-- ARGV  1 seconds until the hash expires, then ids and values in turn
for at = 2, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
end
return redis.call('EXPIRE', KEYS[1], ARGV[1])
