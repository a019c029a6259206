-- One model's factor, shared by all gateways. Whoever finds the last step old enough makes the next one: the rules are
-- Python's (core/pressure/factor.py), this keeps their state, and lets one writer at a time through.
--
-- KEYS  1 hash: state  the gateways' own text, never read here
--               step   the number of that state
--               at     when it was written, by this server's clock (ms)
--               wait   the longest expected wait that a gateway has told since (ms)
-- ARGV  1 the caller's expected wait (ms), 2 ms from one step to the next, 3 ms for which the hash is kept
--       4 the step that the new state follows, 5 the new state ('' for both: the caller only asks)
-- Returns the state ('' for none), its step, ms since it was written, the longest wait, and whether a step is due.
--
-- Sent again after its answer was lost, a write is a question: its step is another one then.

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local found = redis.call('HMGET', KEYS[1], 'state', 'step', 'at', 'wait')
local state, step = found[1] or '', tonumber(found[2]) or 0
local at, wait = tonumber(found[3]) or 0, tonumber(found[4]) or 0
local own = tonumber(ARGV[1])

if ARGV[5] ~= '' and tonumber(ARGV[4]) == step then
  redis.call('HSET', KEYS[1], 'state', ARGV[5], 'step', step + 1, 'at', now, 'wait', 0)
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return { ARGV[5], step + 1, 0, own, 0 }
end

local due = (step == 0 or now < at or now - at >= tonumber(ARGV[2])) and 1 or 0
if own > wait then
  wait = own
  redis.call('HSET', KEYS[1], 'wait', wait)
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return { state, step, math.max(0, math.min(now - at, 60000)), wait, due }
