-- Take the costs of all rules or of none.
-- ARGV: id, lease (ms), time to live (ms), the n rules (JSON: scope, field, kind, limit, capacity of each), n costs.
-- Returns {1 granted or 0 refused, now (us), what is left of each rule}.
sweep()
local id = ARGV[1]
local rules = cjson.decode(ARGV[4])
local n = #ARGV - 4
load(rules, n)
local known = redis.call('HGET', held, id)
local granted = 1
local result = { 1, now }
local record = {}
for i = 1, n do
  local r = (i - 1) * 5
  local scope, field, kind = rules[r + 1], rules[r + 2], rules[r + 3]
  local limit, capacity, cost = rules[r + 4], rules[r + 5], tonumber(ARGV[4 + i])
  local left, at = left_of(scope, field, kind, limit, capacity)
  result[2 + i] = left
  if cost > 0 and cost > left and not known then granted = 0 end
  local at_record = #record
  record[at_record + 1], record[at_record + 2], record[at_record + 3] = scope, field, kind
  record[at_record + 4], record[at_record + 5], record[at_record + 6] = limit, capacity, cost
  record[at_record + 7] = kind == 'b' and 0 or at
end
if granted == 1 and not known then
  for i = 1, n do
    local j = (i - 1) * 7
    take(record[j + 1], record[j + 2], record[j + 3], record[j + 4], record[j + 5], record[j + 6])
    result[2 + i] = result[2 + i] - record[j + 6]
  end
  redis.call('HSET', held, id, cmsgpack.pack(record))
  redis.call('ZADD', leases, now_ms + tonumber(ARGV[2]), id)
end
write(ARGV[3])
result[1] = granted
return result
