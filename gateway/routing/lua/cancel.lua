-- A request is not served for which choose.lua took a place: it has none, no pending work, and is charged nothing. Called
-- again, it changes nothing.
--
-- KEYS  1 pending, 2 entries, 3 expiry, 4 places, 5 gateways, 6 turns, as in choose.lua
-- ARGV  1 gateway, 2 id, 3 class, 4 the tenant's counter there, 5 and 6 what was added to the two

drop(ARGV[2])
if not release(ARGV[1], ARGV[2]) then return 0 end
for at = 3, 4 do
  local before = redis.call('HGET', KEYS[6], ARGV[at])
  if before then
    local left = math.max(0, tonumber(before) - tonumber(ARGV[at + 2]))
    redis.call('HSET', KEYS[6], ARGV[at], string.format('%.0f', left))
  end
end
return 1
