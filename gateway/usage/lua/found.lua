-- Which of the buckets have sums. KEYS: buckets. Returns their numbers, from 1.
local found = {}
for number = 1, #KEYS do
  if #redis.call('HSCAN', KEYS[number], 0, 'COUNT', 1)[2] > 0 then found[#found + 1] = number end
end
return found
