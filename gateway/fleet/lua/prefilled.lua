-- Prompts' first bytes came, or will not come: their work is pending no more. Called again, it changes nothing.
--
-- KEYS  1 pending, 2 entries, 3 expiry, as in choose.lua       ARGV  their ids

for _, id in ipairs(ARGV) do
  local entry = redis.call('HGET', KEYS[2], id)
  redis.call('ZREM', KEYS[3], id)
  if entry then
    redis.call('HDEL', KEYS[2], id)
    local tokens, node = entry:match('^(%d+)|(.*)$')
    redis.call('HINCRBY', KEYS[1], node, 0 - tonumber(tokens))
    if redis.call('HINCRBY', KEYS[1], '#' .. node, -1) <= 0 then
      redis.call('HDEL', KEYS[1], node, '#' .. node)
    end
  end
end
return 0
