-- Requests have places that no call of choose.lua gave them. Called again, it changes nothing.
--
-- KEYS  1 to 5 as in choose.lua       ARGV  1 gateway, then of each its id and node

for number = 2, #ARGV, 2 do
  occupy(ARGV[1], ARGV[number], ARGV[number + 1])
end
return 0
