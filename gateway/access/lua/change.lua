-- Makes all edits of a change or none of them, and writes its audit line in the same moment.
-- KEYS: 1 tenants, 2 keys, 3 version, 4 audit, 5 a mark of this very change: it may be sent twice
-- ARGV: 1 audit lines kept, 2 audit line, then five for each edit:
--   the hash (1 or 2), the field, what must hold (absent, present, or same as the next one), what was there, the new value ('': delete)
-- Returns 0, or the number of the first edit whose condition does not hold.
--
-- Redis undoes nothing of a script that fails midway (a right that its user lacks, a key of another type). So all that
-- may be refused comes before the first edit: reading finds keys of another type, and each command that writes is tried
-- where it changes nothing. The mark says 1 only when all is done.
if redis.call('HGET', KEYS[5], 'done') == '1' then return 0 end
for i = 3, #ARGV, 5 do
  local there = redis.call('HGET', KEYS[tonumber(ARGV[i])], ARGV[i + 1])
  local must = ARGV[i + 2]
  local holds = (must == 'absent' and not there) or (must == 'present' and there) or (must == 'same' and there == ARGV[i + 3])
  if not holds then return (i + 2) / 5 end
end
-- The time and not a count: a Redis that lost its last changes must not come to an old version again with others.
local now, before = redis.call('TIME'), redis.call('GET', KEYS[3]) or '0'
local version = math.max(now[1] * 1000000 + now[2], (tonumber(before) or 0) + 1)
redis.call('HSET', KEYS[5], 'done', 0)
redis.call('EXPIRE', KEYS[5], 300)
redis.call('SET', KEYS[3], before)
redis.call('HDEL', KEYS[2], '')
redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[1], '*', 'line', ARGV[2])
for i = 3, #ARGV, 5 do
  local hash, field, value = KEYS[tonumber(ARGV[i])], ARGV[i + 1], ARGV[i + 4]
  if ARGV[i + 2] == 'present' then -- only asked for
  elseif value == '' then redis.call('HDEL', hash, field)
  else redis.call('HSET', hash, field, value) end
end
redis.call('SET', KEYS[3], string.format('%.0f', version))
redis.call('HSET', KEYS[5], 'done', 1)
return 0
