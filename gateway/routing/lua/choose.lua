-- Chooses a node for a prompt by what all gateways know, and lets the choice count at once.
--
-- KEYS  1 pending   hash: node -> uncached prompt tokens sent to it whose first byte has not come; "#node" -> of how many
--       2 entries   hash: id -> "tokens|node", each of what makes up `pending`
--       3 expiry    sorted set: id -> when it stops to count (a gateway that died takes nothing back)
--       4 places    hash: node -> requests that it has
--       5 gateways  sorted set: gateway -> until when (ms) its requests count
--       6 waiting   hash: gateway -> "until|class|counter's name|how many|slack|facts", of the model: whose turn it is there
--       7 turns     hash: the virtual counters of the model, and "^" their floors (core/admission/fair_order.py)
--       8 last      string: "tokens|milliseconds|node|written", where the conversation was last, and what had been written
--                   into that node's cache by then
--       1:written:NODE  string: tokens that were written into the node's cache, by estimate, since it is known
-- ARGV  1 id, 2 tokens of the prompt, 3 seconds that `last` is kept, 4 seconds that a full node is worse by, 5 thrift,
--       6 gateway, 7 class, 8 the tenant's counter there, 9 and 10 what is added to the two, 11 how many of the tenant wait
--       at the gateway (0: others are not told), by how much counters may differ and count as equal, and facts of all that wait there ("n|slack|facts";
--       empty: the request has just come), 12 candidates ("n|s": of more, of which the conversation's last node may be one),
--       13 tokens that the answer is expected to have, 14 the share of a full node's seconds per token that one takes on an
--       empty node,
--       then for each candidate, in the conversation's own order: name, seconds per token, crowd as the gateway counts,
--       seconds since its caches began, requests that it may have (0: any number), what the answer costs where it is full,
--       tokens of a block of its cache, and that are written until what was in its cache is gone (0: not known),
--       then counters of those that wait: name, and 1 where it has begun to wait
-- Returns the candidate's number (from 1), the tokens expected in its cache, the tokens ahead of it, and the reason (0 new, 1
-- home, 2 moved; and with number 0: 3 all full, 4 others wait whose turn it is, 5 the gateway is not known, 6 ask again with
-- the last node among them), the counters that were asked for, the floors of classes and of the class, what other gateways
-- said of those that wait there, the conversation's last node where it was asked for, and the candidate's crowd, in
-- thousandths.
-- The formula is that of core/routing/selection.py. Called again with the same id, it chooses anew and charges nothing.

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, 32)) do
  drop(id)
end
drop(ARGV[1])
sweep(now)

local gateway, class, member = ARGV[6], ARGV[7], ARGV[8]
local again = release(gateway, ARGV[1])
local candidates, sampled = ARGV[12]:match('^(%d+)(.*)$')
candidates = tonumber(candidates)
local waits = ARGV[11] ~= ''
local asked = 15 + 8 * candidates

local function number(field) return tonumber(redis.call('HGET', KEYS[7], field) or 0) end

local my_count, slack = ARGV[11]:match('^(%d+)|(%d+)|')
my_count, slack = tonumber(my_count or 0), tonumber(slack or 0)

local counters, others = {}, {}
for at = asked, #ARGV, 2 do
  local name = ARGV[at]
  local value = number(name)
  if ARGV[at + 1] == '1' then
    local of = name:match('^([^|]*)|')
    local least = of and number('^' .. of) - 2 * slack or number('^')
    if value < least then
      value = least
      redis.call('HSET', KEYS[7], name, string.format('%.0f', least))
    end
  end
  counters[#counters + 1] = value
end
local floor_of_classes, floor_of_class = number('^'), number('^' .. class)

local function refuse(reason, last)
  return { 0, 0, 0, reason, counters, { floor_of_classes, floor_of_class }, others, last or '', 0 }
end

if not is_known(gateway) then return refuse(5) end

-- Whose turn it is at other gateways.
local mine_of_class, mine = number(class), number(member)
local before_mine = 0
local all = redis.call('HGETALL', KEYS[6])
for i = 1, #all, 2 do
  if all[i] ~= gateway then
    local till, of, name, count = all[i + 1]:match('^(%d+)|([^|]*)|([^|]*|[^|]*)|(%d+)|')
    if not till or tonumber(till) <= now or tonumber(till) > now + 10000 then  -- the last: the clock has gone back
      redis.call('HDEL', KEYS[6], all[i])
    else
      others[#others + 1] = all[i + 1]
      count = tonumber(count)
      local theirs, own = number(name), mine
      local first = theirs < own
      if of ~= class then
        first = number(of) < mine_of_class
      elseif math.abs(theirs - own) <= slack and count ~= my_count then
        first = count < my_count
      end
      if not waits or first then before_mine = before_mine + count end
    end
  end
end
if my_count > 0 then
  redis.call('HSET', KEYS[6], gateway, (now + 250) .. '|' .. class .. '|' .. member .. '|' .. ARGV[11])
  redis.call('PEXPIRE', KEYS[6], 60000)
end

local prompt, keep = tonumber(ARGV[2]), tonumber(ARGV[3])
local load_penalty, thrift = tonumber(ARGV[4]), tonumber(ARGV[5])
local answer, idle = tonumber(ARGV[13]), tonumber(ARGV[14])
local function written(node) return KEYS[1] .. ':written:' .. node end
local left, age, home, passed = 0, 0, nil, 0
local last = redis.call('GET', KEYS[8])
if last then
  local tokens, at, node = last:match('^(%d+)|(%d+)|(.*)$')
  local name, before = node:match('^(.*)|(%d+)$')  -- an older gateway does not say it
  left, age, home = math.min(tonumber(tokens), prompt), (now - tonumber(at)) / 1000, name or node
  if name then passed = tonumber(redis.call('GET', written(name)) or 0) - tonumber(before) end
end

-- The facts of all candidates at once.
local names, both = {}, {}
for number = 1, candidates do
  local node = ARGV[8 * number + 7]
  names[number] = node
  both[2 * number - 1], both[2 * number] = node, '#' .. node
end
local taken = redis.call('HMGET', KEYS[4], unpack(names))
local pending = redis.call('HMGET', KEYS[1], unpack(both))

local best, shortest, cached, before, free, full = 0, math.huge, 0, 0, 0, 0
local fastest, least, listed = math.huge, math.huge, home == nil
for number = 1, candidates do
  local at = 8 * number + 6
  local node, pace, crowd, warm = ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local bound = tonumber(ARGV[at + 5])
  local room = math.huge
  if bound > 0 then
    room = bound - tonumber(taken[number] or 0)
    if pace > 0 then crowd = math.max(crowd, 1 - room / bound) end  -- all gateways' requests; nothing of no pace counts
  end
  local costs = tonumber(ARGV[at + 6])
  fastest, least = math.min(fastest, pace), math.min(least, costs)
  listed = listed or node == home
  if room > 0 then
    free = free + room
    local held = 0
    if node == home and age <= warm then
      local lasting = tonumber(ARGV[at + 8])
      if lasting == 0 or passed <= lasting then held = left - left % tonumber(ARGV[at + 7]) end
    end
    local tokens, prompts = tonumber(pending[2 * number - 1] or 0), tonumber(pending[2 * number] or 0)
    local ahead = prompts > 0 and tokens - tokens / (2 * prompts) or 0
    local wait = (ahead + thrift * (prompt - held)) * pace + crowd * load_penalty
      + costs * (idle + 2 * (1 - idle) * crowd)
    if wait < shortest then
      best, shortest, cached, before, full = number, wait, held, ahead, crowd
    end
  end
end
-- An idle last node would be better than the best of the sample, by more than it takes to ask again (5 ms).
local idlest = thrift * (prompt - left) * fastest + least * idle
if sampled ~= '' and not listed and idlest + 0.005 < shortest then return refuse(6, home) end
if best == 0 then return refuse(3) end
if free <= before_mine then return refuse(4) end

local node, work = ARGV[8 * best + 7], prompt - cached
occupy(gateway, ARGV[1], node)
if not again then
  local function charge(level, name, value, floor, amount)
    if not waits then value = math.max(value, floor) end
    redis.call('HSET', KEYS[7], name, string.format('%.0f', value + amount))
    if value > floor then redis.call('HSET', KEYS[7], level, string.format('%.0f', value)) end
  end
  charge('^', class, mine_of_class, floor_of_classes, tonumber(ARGV[9]))
  charge('^' .. class, member, mine, floor_of_class, tonumber(ARGV[10]))
  redis.call('PEXPIRE', KEYS[7], 86400000)
end
redis.call('HINCRBY', KEYS[1], node, work)
redis.call('HINCRBY', KEYS[1], '#' .. node, 1)
redis.call('HSET', KEYS[2], ARGV[1], work .. '|' .. node)
-- Three times what it should take, and half a minute: what is later is late for other reasons.
redis.call('ZADD', KEYS[3], now + 30000 + math.floor(3000 * math.min(shortest, 1200)), ARGV[1])
local keeping = math.floor(keep * 1000)
local total = string.format('%.0f', tonumber(redis.call('GET', written(node)) or 0) + work + answer)
redis.call('SET', written(node), total, 'PX', keeping)
redis.call('SET', KEYS[8], prompt .. '|' .. now .. '|' .. node .. '|' .. total, 'PX', keeping)
return {
  best, cached, math.floor(before), home == nil and 0 or (home == node and 1 or 2),
  counters, { floor_of_classes, floor_of_class }, others, '', math.floor(1000 * full),
}
