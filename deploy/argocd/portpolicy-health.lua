-- Argo CD's question: is this PortPolicy well? Answers from mode, conditions and observedGeneration.
-- Not for other kinds. See docs/operations.md for where to put it.
local hs = {status = "Progressing", message = "No node has reported yet"}
local spec, status = obj.spec or {}, obj.status

if spec.confirmBefore ~= nil then
  hs.status = "Suspended"
  hs.message = "On trial: confirm before " .. spec.confirmBefore .. " (portforge confirm)"
end
if status == nil or status.conditions == nil then
  return hs
end
if status.observedGeneration == nil or obj.metadata.generation == nil
    or status.observedGeneration < obj.metadata.generation then
  if hs.status == "Progressing" then
    hs.message = "The nodes have not taken up the last change yet"
  end
  return hs
end

local found = {}
for _, condition in ipairs(status.conditions) do
  found[condition.type] = condition
end
local function said(condition, otherwise)
  if condition ~= nil and condition.message ~= nil and condition.message ~= "" then
    return condition.message
  end
  return otherwise
end

if found.Degraded ~= nil and found.Degraded.status == "True" then
  return {status = "Degraded", message = said(found.Degraded, "Not in force as written")}
end
if hs.status == "Suspended" then
  return hs
end
local wanted = found.Ready
if spec.mode == "Enforce" then
  wanted = found.Enforced
end
if wanted ~= nil and wanted.status == "True" then
  local nodes = (status.appliedNodes or 0) .. " of " .. (status.nodes or 0) .. " nodes"
  return {status = "Healthy", message = said(wanted, nodes)}
end
hs.message = said(wanted, hs.message)
return hs
