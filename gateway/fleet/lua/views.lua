-- Views of processes that are kept for a while: a hash of process -> its view, and a sorted set of process -> when its
-- view does not count any more, by this server's clock. For the scripts behind it.

-- Keeps `view` of `process` for `kept` milliseconds ('': removes it), and drops those that do not count any more.
local function keep_view(views, until_when, process, kept, view)
  local clock = redis.call('TIME')
  local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', until_when, '-inf', now)) do
    redis.call('HDEL', views, gone)
    redis.call('ZREM', until_when, gone)
  end
  if view == '' then
    redis.call('HDEL', views, process)
    redis.call('ZREM', until_when, process)
  else
    redis.call('HSET', views, process, view)
    count_until(until_when, now + kept, process)
    redis.call('PEXPIRE', views, 6 * kept)
    redis.call('PEXPIRE', until_when, 6 * kept)
  end
end

-- Appends the views of all but `process` to `found`.
local function add_views_of_others(views, process, found)
  local all = redis.call('HGETALL', views)
  for at = 1, #all, 2 do
    if all[at] ~= process then
      found[#found + 1] = all[at + 1]
    end
  end
end

