-- Lays down what one gateway process sees of the fleet, and returns what the others see.
--
-- KEYS  1 views   hash: process -> its view
--       2 until   sorted set: process -> when its view does not count any more, by this server's clock
-- ARGV  1 process, 2 milliseconds for which its view counts, 3 the view ('': it leaves), 4 whether the others' are wanted

keep_view(KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3])

local others = {}
if ARGV[4] == '1' then
  add_views_of_others(KEYS[1], ARGV[1], others)
end
return others
