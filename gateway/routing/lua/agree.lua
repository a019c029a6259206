-- Whether all live gateways name the same groups of models (core/routing/grouping.py), and since when.
--
-- KEYS  1 gateways    sorted set: gateway -> until when (ms) it lives. One that names groups has their fingerprint in its
--                     name, behind a dot
--       2 grouping    string: "before|now|milliseconds": the fingerprint that holds, since when, and the one until then
-- ARGV  1 fingerprint of the gateway that asks, 2 milliseconds that a change takes: there is none while another is under way
--       3 the fingerprint that held as it knows, "?" where it has just begun: it holds on where Redis has lost its data,
--       since the others are not there again yet
-- Returns the fingerprint before, the one that holds, and for how many milliseconds it has.

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local common = ARGV[1]
for _, gateway in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')) do
  if (gateway:match('%.(.*)$') or '') ~= common then common = '' end
end
local before, holds, since = (redis.call('GET', KEYS[2]) or ''):match('^([^|]*)|([^|]*)|(%d+)$')
if not holds then
  local begins = ARGV[3] == '?'
  holds = begins and common or ARGV[3]
  before, since = holds, begins and now - tonumber(ARGV[2]) or now  -- others may come at once, or be there again
elseif tonumber(since) > now then  -- the clock has gone back. What holds has so for long, most likely: no step anew
  since = now - tonumber(ARGV[2])
elseif holds ~= common and now - tonumber(since) >= tonumber(ARGV[2]) then
  before, holds, since = holds, holds == '' and common or '', now  -- from some to others by way of none
end
redis.call('SET', KEYS[2], before .. '|' .. holds .. '|' .. string.format('%.0f', since), 'PX', 60000)
return { before, holds, math.max(0, now - tonumber(since)) }
