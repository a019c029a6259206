-- A gateway lives, and says what requests used that were charged as planned.
--
-- KEYS  1 to 5 as in choose.lua, 6 corrected   string: the number of the gateway's last corrections
--       then the hashes of virtual counters that are corrected
-- ARGV  1 gateway, 2 for how long it counts from now (ms; 0: it leaves), 3 the number of these corrections,
--       then of each: its hash (from 1), the counter's name, what is added to it
-- Returns 1 where its requests have counted until now, 0 where it was not known: its places have to be told again.
-- Called again with the same number, it corrects nothing.

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
sweep(now)
local gateway = ARGV[1]
local known = is_known(gateway) and 1 or 0
if ARGV[2] == '0' then
  leave(gateway)
  return known
end
count_until(KEYS[5], now + tonumber(ARGV[2]), gateway)
redis.call('HSET', KEYS[5] .. ':' .. gateway, '#', 1)
if #ARGV > 3 and ARGV[3] ~= redis.call('GET', KEYS[6]) then
  for at = 4, #ARGV, 3 do
    local key, name, change = KEYS[6 + tonumber(ARGV[at])], ARGV[at + 1], tonumber(ARGV[at + 2])
    local before = redis.call('HGET', key, name)
    if before then redis.call('HSET', key, name, string.format('%.0f', math.max(0, tonumber(before) + change))) end
  end
  redis.call('SET', KEYS[6], ARGV[3], 'PX', 60000)
end
return known
