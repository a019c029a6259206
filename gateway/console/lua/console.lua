-- What gateway processes tell each other for the console: views, while somebody watches, and requests to be ended.
--
-- KEYS  1 views    hash: process -> its view
--       2 until    sorted set: process -> when its view does not count any more, by this server's clock
--       3 watched  string: there while a console is open
--       4 orders   hash: id of an order -> the order, or what became of it
-- ARGV  1 process, 2 milliseconds for which its view counts, 3 the view ('': none), 4 '1' where a console is open in it,
--       5 id of an order ('': none), 6 the order
--
-- Returns whether a console is open anywhere, the number of the views of others, these, and ids and orders.

keep_view(KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3])

if ARGV[4] == '1' then
  redis.call('SET', KEYS[3], '1', 'PX', ARGV[2])
end
if ARGV[5] ~= '' then
  redis.call('HSET', KEYS[4], ARGV[5], ARGV[6])
  redis.call('PEXPIRE', KEYS[4], 3 * ARGV[2])
end

local watched = redis.call('GET', KEYS[3])
local told = { watched and '1' or '0', '0' }
if ARGV[4] == '1' then
  add_views_of_others(KEYS[1], ARGV[1], told)
  told[2] = tostring(#told - 2)
end
for _, word in ipairs(redis.call('HGETALL', KEYS[4])) do
  told[#told + 1] = word
end
return told
