-- One key's record, its tenant's, and the version of both. KEYS: 1 tenants, 2 keys, 3 version. ARGV: 1 the key's id
local key = redis.call('HGET', KEYS[2], ARGV[1])
-- A record that this version cannot read is the caller's to complain of.
local read, record = pcall(cjson.decode, key)
local named = read and type(record) == 'table' and type(record.tenant) == 'string'
local tenant = named and redis.call('HGET', KEYS[1], record.tenant)
return {tonumber(redis.call('GET', KEYS[3]) or '0'), key, tenant}
