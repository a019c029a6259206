-- A prompt's first byte came, or will not come: its work is pending no more. Called again, it changes nothing.
--
-- KEYS  1 pending, 2 entries, 3 expiry, as in choose.lua       ARGV  1 id

local entry = redis.call('HGET', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
if entry then
  redis.call('HDEL', KEYS[2], ARGV[1])
  local tokens, node = entry:match('^(%d+)|(.*)$')
  redis.call('HINCRBY', KEYS[1], node, 0 - tonumber(tokens))
  if redis.call('HINCRBY', KEYS[1], '#' .. node, -1) <= 0 then
    redis.call('HDEL', KEYS[1], node, '#' .. node)
  end
end
return 0
