-- Gives a failed REST call its OpenAI error. Stands before the transcoder, so it sees the response after it.
-- A gRPC client's response is left alone: it reads the status and the trailers itself.

local GRPC_ONLY = {"x-openai-error", "x-http-status", "grpc-status", "grpc-message", "grpc-status-details-bin", "grpc-accept-encoding"}
local CODES = {["503"] = '"service_unavailable"', ["504"] = '"deadline_exceeded"'}

-- For errors that no service of ours wrote. gRPC's own text is not repeated: it names addresses inside the mesh.
local function unexplained(status)
  local kind = status >= "500" and "server_error" or "invalid_request_error"
  local message = "The gateway could not answer this request (status " .. status .. ")."
  return '{"error":{"message":"' .. message .. '","type":"' .. kind .. '","param":null,"code":' .. (CODES[status] or "null") .. "}}"
end

-- What the transcoder makes of a gRPC status, as opposed to an error that Envoy wrote by our local_reply_config.
local function is_status(body)
  return body:length() > 8 and body:getBytes(0, 8) == '{"code":'
end

local function explain(response)
  -- Both wait, so headers are asked for after them.
  local body, trailers = response:body(true), response:trailers()
  local headers = response:headers()
  -- The service's fields are headers already, but trailers when it had sent headers before it failed.
  for name, value in pairs(trailers or {}) do
    headers:replace(name, value)
  end
  local status = headers:get("x-http-status") or headers:get(":status")
  local document = headers:get("x-openai-error") or is_status(body) and unexplained(status)
  if document then
    headers:replace(":status", status)
    headers:replace("content-type", "application/json")
    headers:replace("content-length", tostring(body:setBytes(document)))
  end
  return headers
end

function envoy_on_response(response)
  local headers = response:headers()
  local status = headers:get(":status")
  -- A gRPC client always gets 200. Where a unary method failed, a REST client's response has gRPC's content type too, but its own status.
  if status == "200" and (headers:get("content-type") or ""):find("application/grpc", 1, true) == 1 then
    return
  end
  if status >= "400" then
    headers = explain(response)
  elseif headers:get("x-http-status") then
    headers:replace(":status", headers:get("x-http-status"))
  end
  for _, name in ipairs(GRPC_ONLY) do
    headers:remove(name)
  end
end
