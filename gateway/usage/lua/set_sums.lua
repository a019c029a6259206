-- Writes sums of one bucket, as they were in another Redis. Writing the same again changes nothing.
-- KEYS: 1 tenants (set), 2 the bucket
-- ARGV: 1 whether sums that differ are set (1) or stay (0), 2 whether anything is written (1) or only counted (0),
--   3 the tenant, 4 the bucket's time to live in seconds, then for each part: the number of its measures, then the
--   field and the value of each
-- Returns how many parts were added, set, left though they differ, and were the same.
local added, changed, kept, same = 0, 0, 0, 0
local write, at = ARGV[2] == '1', 5
while at <= #ARGV do
  local count = tonumber(ARGV[at])
  local there, differs = false, false
  for measure = 0, count - 1 do
    local now = redis.call('HGET', KEYS[2], ARGV[at + 1 + 2 * measure])
    there = there or now ~= false
    differs = differs or (now or '0') ~= ARGV[at + 2 + 2 * measure]
  end
  local set = differs and (not there or ARGV[1] == '1')
  if not differs then same = same + 1
  elseif not there then added = added + 1
  elseif set then changed = changed + 1
  else kept = kept + 1 end
  if set and write then
    if at == 5 or added + changed == 1 then redis.call('SADD', KEYS[1], ARGV[3]) end
    for measure = 0, count - 1 do
      local field, value = ARGV[at + 1 + 2 * measure], ARGV[at + 2 + 2 * measure]
      if value == '0' then redis.call('HDEL', KEYS[2], field) else redis.call('HSET', KEYS[2], field, value) end
    end
  end
  at = at + 1 + 2 * count
end
if write and added + changed > 0 then redis.call('EXPIRE', KEYS[2], ARGV[4]) end
return {added, changed, kept, same}
