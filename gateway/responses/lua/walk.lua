-- Read a turn and those before it, back towards the conversation's beginning, up to a page of bytes.
-- KEYS: the conversation's turns. ARGV: turn, bytes of a page, whether the first one may be a deleted one ('1': another
--   goes on from it).
-- Returns the names and records of the turns by turns, the last turn first; nothing where it is not there.
local turns, turn, page, deleted = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1'
local found, bytes = {}, 0
while turn ~= '0000000000000000' and bytes < page do
  local record = redis.call('HGET', turns, turn)
  if not record and deleted then record = redis.call('HGET', turns, '-' .. turn) end
  if not record then return {} end
  found[#found + 1] = turn
  found[#found + 1] = record
  bytes = bytes + #record
  turn = record:sub(1, 16)
  deleted = true
end
return found
