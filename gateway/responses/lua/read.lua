-- Read turns, up to a page of bytes.
-- KEYS: the conversation's turns. ARGV: bytes of a page, turns.
-- Returns a record for each of the first turns, as many as fit, nil for one that is not there.
local found, bytes, page = {}, 0, tonumber(ARGV[1])
for at = 2, #ARGV do
  local record = redis.call('HGET', KEYS[1], ARGV[at])
  found[at - 1] = record
  if record then bytes = bytes + #record end
  if bytes >= page then break end
end
return found
