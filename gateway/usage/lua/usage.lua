-- Writes a batch of records and adds its sums, once: a batch whose mark is there has been written already.
-- KEYS: 1 records (stream), 2 tenants (set), 3 the batch's mark, then a hash for each bucket of sums
-- ARGV: 1 records kept, 2 number of records, then each record; then for each bucket:
--   its tenant, its time to live in seconds, the number of its sums, then each one's field and increment
-- Returns what could not be written, '' for nothing: numbers (0 the records, 1 the first bucket) with commas between,
-- a blank, and the last error. Redis undoes nothing of a script that fails midway, so one part must not stop the others.
local before = redis.call('GET', KEYS[3])
if before then return before end
redis.call('SET', KEYS[3], '', 'EX', 86400) -- first: where Redis is full, this is refused, and nothing is written

local refused, why = {}, nil
local function refuses(...)
  local done = redis.pcall(...)
  if type(done) == 'table' and done.err then
    why = done.err
    return true
  end
end

local at = 3
for number = 1, tonumber(ARGV[2]) do
  if refuses('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'record', ARGV[at + number - 1]) then
    refused[1] = 0
    break
  end
end
at = at + tonumber(ARGV[2])
for bucket = 4, #KEYS do
  local tenant, ttl, count = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  at = at + 3
  -- Whether each may be done is known before the first sum is added.
  local stop = refuses('SADD', KEYS[2], tenant) or refuses('EXPIRE', KEYS[bucket], ttl)
  for sum = 0, count - 1 do
    stop = stop or (refuses('HINCRBY', KEYS[bucket], ARGV[at + 2 * sum], ARGV[at + 2 * sum + 1]) and sum == 0)
    if stop then break end
  end
  if stop then refused[#refused + 1] = bucket - 3 end
  at = at + 2 * count
  refuses('EXPIRE', KEYS[bucket], ttl)
end
if #refused == 0 then return '' end
local told = table.concat(refused, ',') .. ' ' .. why
redis.call('SET', KEYS[3], told, 'EX', 86400)
return told
