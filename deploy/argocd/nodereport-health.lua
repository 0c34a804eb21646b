-- Argo CD's question: is this node's agent well? Answers from what the agent reports of itself.
-- A report does not get older by itself here: an agent that is away is the alerts' business.
local status = obj.status
if status == nil or status.heartbeat == nil then
  return {status = "Progressing", message = "The agent has not reported yet"}
end
if status.breakGlass ~= nil and status.breakGlass ~= "" then
  return {status = "Suspended", message = "Break-glass " .. status.breakGlass .. ": nothing is denied here"}
end
for _, policy in ipairs(status.policies or {}) do
  if policy.problem ~= nil and policy.problem ~= "" then
    return {status = "Degraded", message = policy.namespace .. "/" .. policy.name .. ": " .. policy.problem}
  end
end
if status.synced ~= true then
  return {status = "Progressing", message = "The agent reads the API server's objects"}
end
if status.canary == nil then
  return {status = "Progressing", message = "The canary has not been recorded yet"}
end
return {status = "Healthy", message = "Agent " .. (status.agent or "?") .. ", " .. (status.losses or 0) .. " losses"}
