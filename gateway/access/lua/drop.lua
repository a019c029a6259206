-- Takes out keys of a tenant that there is not, as they were read. What is there again is left alone.
-- KEYS: 1 tenants, 2 keys, 3 used
-- ARGV: 1 the tenant, then each key's id and its record. Returns how many are gone, -1 where the tenant is there.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then return -1 end
local gone = 0
for i = 2, #ARGV, 2 do
  if redis.call('HGET', KEYS[2], ARGV[i]) == ARGV[i + 1] then
    redis.call('HDEL', KEYS[2], ARGV[i])
    redis.call('HDEL', KEYS[3], ARGV[i])
    gone = gone + 1
  end
end
return gone
