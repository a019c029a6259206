-- What the scripts share: the places of nodes that requests of all gateways have. KEYS 4 and 5 are those of choose.lua.
-- The leases of a gateway are a hash, id -> node, whose name is KEYS[5]:GATEWAY; it has a field "#" as long as its gateway
-- is known. Called again, nothing here changes anything.

local function leases_of(gateway) return KEYS[5] .. ':' .. gateway end

local function vacate(node)
  if redis.call('HINCRBY', KEYS[4], node, -1) <= 0 then redis.call('HDEL', KEYS[4], node) end
end

local function release(gateway, id)
  local node = redis.call('HGET', leases_of(gateway), id)
  if node then
    redis.call('HDEL', leases_of(gateway), id)
    vacate(node)
  end
  return node
end

local function occupy(gateway, id, node)
  if redis.call('HSET', leases_of(gateway), id, node) == 1 then redis.call('HINCRBY', KEYS[4], node, 1) end
end

local function is_known(gateway) return redis.call('HMGET', leases_of(gateway), '#')[1] end

local function leave(gateway)
  local leases = redis.call('HGETALL', leases_of(gateway))
  for at = 1, #leases, 2 do
    if leases[at] ~= '#' then vacate(leases[at + 1]) end
    redis.call('HDEL', leases_of(gateway), leases[at])
  end
  redis.call('ZREM', KEYS[5], gateway)
end

-- Give back the places of a gateway that died.
local function sweep(now)
  for _, gateway in ipairs(redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', now, 'LIMIT', 0, 1)) do leave(gateway) end
end
