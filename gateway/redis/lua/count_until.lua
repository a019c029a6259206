-- For the scripts behind it that keep sorted sets of members by the time (ms) until which they count.

-- Has `member` of the set `key` count until `till`, and no other longer: one that died when this server's clock was
-- further on would count until the clock is there again.
local function count_until(key, till, member)
  for _, other in ipairs(redis.call('ZRANGEBYSCORE', key, string.format('(%d', till), '+inf')) do
    redis.call('ZADD', key, till, other)
  end
  redis.call('ZADD', key, till, member)
end

