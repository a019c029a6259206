-- What the scripts share: a prompt that is pending no more. KEYS 1 to 3 are those of choose.lua. Called again, it changes nothing.

local function drop(id)
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
