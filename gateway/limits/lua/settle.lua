-- Make a reservation what was really used.
-- ARGV: id, time to live (ms), n amounts used, then for each of the n rules scope, field, kind, limit, capacity.
-- Returns now (us).
local id = ARGV[1]
local n = (#ARGV - 2) / 6
local record = redis.call('HGET', held, id)
if record == 's' then return now end
local before = record and #record > 1 and cmsgpack.unpack(record)
for i = 1, n do
  local r = 2 + n + (i - 1) * 5
  local scope, field, kind = ARGV[r + 1], ARGV[r + 2], ARGV[r + 3]
  local limit, capacity, used = tonumber(ARGV[r + 4]), tonumber(ARGV[r + 5]), tonumber(ARGV[2 + i])
  if before then
    local j = (i - 1) * 7
    adjust(scope, field, kind, limit, capacity, (kind == 'l' and 0 or used) - before[j + 6], before[j + 7])
  elseif kind ~= 'l' then
    take(scope, field, kind, limit, capacity, used)
  end
end
redis.call('HSET', held, id, 's')
redis.call('ZADD', leases, now_ms + KEPT, id)
write(ARGV[2])
return now
