-- One key's record, its tenant's, the version of both, and what is blocked of both: key:ID, tenant:NAME.
-- KEYS: 1 tenants, 2 keys, 3 version, 4 blocked. ARGV: 1 the key's id
local key = redis.call('HGET', KEYS[2], ARGV[1])
-- A record that this version cannot read is the caller's to complain of.
local read, record = pcall(cjson.decode, key)
local named = read and type(record) == 'table' and type(record.tenant) == 'string'
local tenant = named and redis.call('HGET', KEYS[1], record.tenant)
local blocked = {}
for _, subject in ipairs(named and {'key:' .. ARGV[1], 'tenant:' .. record.tenant} or {}) do
  if redis.pcall('HEXISTS', KEYS[4], subject) == 1 then blocked[#blocked + 1] = subject end
end
return {tonumber(redis.call('GET', KEYS[3]) or '0'), key, tenant, blocked}
