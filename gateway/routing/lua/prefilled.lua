-- Prompts' first bytes came, or will not come: their work is pending no more. Called again, it changes nothing.
--
-- KEYS  1 pending, 2 entries, 3 expiry, as in choose.lua       ARGV  their ids

for _, id in ipairs(ARGV) do
  drop(id)
end
return 0
