-- Writes a batch of records and adds its sums, once: a batch whose mark is there has been written already.
-- KEYS: 1 records (stream), 2 tenants (set), 3 the batch's mark, then a hash for each bucket of sums
-- ARGV: 1 records kept, 2 number of records, then each record; then for each bucket:
--   its tenant, its time to live in seconds, the number of its sums, then each one's field and increment
if redis.call('EXISTS', KEYS[3]) == 1 then return 0 end
local at = 3
for _ = 1, tonumber(ARGV[2]) do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'record', ARGV[at])
  at = at + 1
end
for bucket = 4, #KEYS do
  local tenant, ttl, count = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  at = at + 3
  redis.call('SADD', KEYS[2], tenant)
  for _ = 1, count do
    redis.call('HINCRBY', KEYS[bucket], ARGV[at], ARGV[at + 1])
    at = at + 2
  end
  redis.call('EXPIRE', KEYS[bucket], ttl)
end
redis.call('SET', KEYS[3], 1, 'EX', 86400)
return 1
