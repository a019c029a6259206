-- One key's record, its tenant's, and the version of both. KEYS: 1 tenants, 2 keys, 3 version. ARGV: 1 the key's id
local key = redis.call('HGET', KEYS[2], ARGV[1])
local tenant = key and redis.call('HGET', KEYS[1], cjson.decode(key).tenant)
return {tonumber(redis.call('GET', KEYS[3]) or '0'), key, tenant}
