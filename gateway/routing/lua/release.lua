-- Requests have ended, or were not made: they have no place, and no pending work. Called again, it changes nothing.
--
-- KEYS  1 pending, 2 entries, 3 expiry, 4 places, 5 gateways, as in choose.lua       ARGV  1 gateway, then their ids

for number = 2, #ARGV do
  drop(ARGV[number])
  release(ARGV[1], ARGV[number])
end
return 0
