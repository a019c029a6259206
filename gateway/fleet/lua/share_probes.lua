-- Gateway processes exchange what they have found out about nodes.
-- KEYS[1]: stream of batches; KEYS[2]: sorted set of processes by the time (ms) until which they count.
-- ARGV: the process; for how long it counts from now (ms; 0: it leaves); for how long batches are kept (ms); the last
-- batch that it has read (empty: none yet); the number of its own batch; its own batch (empty: none).
-- Returns the time (ms), the processes, and the batches of others since: id, process, number and text of each.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
if ARGV[2] == '0' then
  redis.call('ZREM', KEYS[2], ARGV[1])
else
  count_until(KEYS[2], now + tonumber(ARGV[2]), ARGV[1])
  redis.call('PEXPIRE', KEYS[2], 60000)
end

-- Of a server that has taken over with another clock, or has lost its keys, all that is kept is new.
local since = ARGV[4]
local ms = tonumber(string.match(since, '^(%d+)-%d+$') or '')
local oldest = now - tonumber(ARGV[3])
local found = {}
if ms then
  local start = '(' .. since
  if ms > now + 1000 or ms < oldest then
    start = string.format('%.0f', oldest)
  end
  local entries = redis.call('XREVRANGE', KEYS[1], '+', start)
  for at = #entries, 1, -1 do
    local id, fields = entries[at][1], entries[at][2]
    since = id
    if fields[2] ~= ARGV[1] then
      found[#found + 1] = id
      found[#found + 1] = fields[2]
      found[#found + 1] = fields[4]
      found[#found + 1] = fields[6]
    end
  end
end
if not ms or ms > now + 1000 or ms < oldest then
  if #found == 0 then
    since = string.format('%.0f-0', now - 1)
  end
end

if ARGV[6] ~= '' then
  redis.call('XADD', KEYS[1], 'MINID', '=', string.format('%.0f', oldest), '*', 'g', ARGV[1], 'n', ARGV[5], 'b', ARGV[6])
  redis.call('PEXPIRE', KEYS[1], 60000)
end
return {now, since, redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '+inf'), found}
