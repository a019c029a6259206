-- Begin the leases of reservations anew.
-- ARGV: lease (ms), then their ids. Returns how many are still held.
local alive = 0
for i = 2, #ARGV do
  local record = redis.call('HGET', held, ARGV[i])
  if record and #record > 1 then
    redis.call('ZADD', leases, now_ms + tonumber(ARGV[1]), ARGV[i])
    alive = alive + 1
  end
end
return alive
