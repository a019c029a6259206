-- Delete a turn. One that others go on from stays as `-TURN` until these are gone: it is a part of what they say.
-- KEYS: the conversation's turns, the tenant's conversations, their sizes.
-- ARGV: conversation, turn, bytes that a turn takes beside its record, and those of one that goes on from none.
-- Returns whether it was there.
local turns, conversations, sizes = KEYS[1], KEYS[2], KEYS[3]
local conversation, turn = ARGV[1], ARGV[2]
local record = redis.call('HGET', turns, turn)
if not record then return 0 end
if redis.call('HEXISTS', turns, 'n' .. turn) == 1 then
  redis.call('HSET', turns, '-' .. turn, record)
  redis.call('HDEL', turns, turn)
  return 1
end
local freed = 0
redis.call('HDEL', turns, turn)
while record do
  local before = record:sub(1, 16)
  local first = before == '0000000000000000'
  freed = freed + #record + tonumber(first and ARGV[4] or ARGV[3])
  if first then break end
  if redis.call('HINCRBY', turns, 'n' .. before, -1) > 0 then break end
  redis.call('HDEL', turns, 'n' .. before)
  record = redis.call('HGET', turns, '-' .. before)
  if record then redis.call('HDEL', turns, '-' .. before) end
end
if redis.call('HEXISTS', sizes, conversation) == 1 then
  redis.call('HINCRBY', sizes, 'total', -freed)
  if redis.call('HINCRBY', sizes, conversation, -freed) <= 0 then
    redis.call('HDEL', sizes, conversation)
    redis.call('ZREM', conversations, conversation)
  end
end
return 1
