-- Prepares the requests and responses of the transcoder. Does not change gRPC calls.
-- embedded/envoy_config.py prepends is_tls, whether clients use HTTPS.

-- Returns metadata of the request that guard.lua has set.
local function noted(handle, name)
  local values = handle:streamInfo():dynamicMetadata():get("gateway")
  return values ~= nil and values[name]
end

-- Returns whether a call is gRPC. The content type of the response cannot tell, as
-- it may be that of a stored artifact.
local function is_grpc(handle)
  return noted(handle, "is_grpc")
end

-- Returns whether a text is UTF-8 (RFC 3629).
local function is_utf8(text)
  local i, n = 1, #text
  while i <= n do
    local lead = string.byte(text, i)
    local more, low, high = 0, 0x80, 0xBF  -- number of further bytes; limits of the first of them
    if lead < 0x80 then more = 0
    elseif lead >= 0xC2 and lead <= 0xDF then more = 1
    elseif lead == 0xE0 then more, low = 2, 0xA0
    elseif lead == 0xED then more, high = 2, 0x9F
    elseif lead >= 0xE1 and lead <= 0xEF then more = 2
    elseif lead == 0xF0 then more, low = 3, 0x90
    elseif lead >= 0xF1 and lead <= 0xF3 then more = 3
    elseif lead == 0xF4 then more, high = 3, 0x8F
    else return false end
    for k = 1, more do
      local byte = string.byte(text, i + k)
      if byte == nil or byte < low or byte > high then return false end
      low, high = 0x80, 0xBF
    end
    i = i + more + 1
  end
  return true
end

function envoy_on_request(handle)
  if is_grpc(handle) then
    return
  end
  local headers = handle:headers()
  -- Strings of protobuf must be UTF-8; the server would fail on anything else. Queries are checked elsewhere: those of
  -- /v1 by the next filter, those of the Intel-compatible API by the server.
  local path = headers:get(":path")
  path = path and string.match(path, "^[^?]*")
  if path ~= nil and string.find(path, "%%[89A-Fa-f]%x") then
    local decoded = string.gsub(path, "%%(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end)
    if not is_utf8(decoded) then
      local kind = string.match(path, "^/(%a+)s/[^/]+")
      local is_id = kind == "model" or kind == "project"
      local message = is_id and "Invalid format for " .. kind .. " ID." or "The URL is not UTF-8."
      handle:respond({[":status"] = "400"}, message)
      return
    end
  end
  -- These headers have a meaning in gRPC, and would fail the call if malformed.
  local reserved = {}
  for name, _ in pairs(headers) do
    if string.find(name, "^grpc%-") or string.find(name, "%-bin$") then
      table.insert(reserved, name)
    end
  end
  for _, name in ipairs(reserved) do
    headers:remove(name)
  end
end

-- Adds headers that keep browsers from running a response as a script or a page,
-- showing it in a frame, or giving it to a page of another origin: an artifact may
-- be any bytes. The documentation's pages have a policy of their own.
local function harden(headers)
  headers:replace("x-content-type-options", "nosniff")
  headers:replace("cross-origin-resource-policy", "same-origin")
  if headers:get("content-security-policy") == nil then
    headers:add("content-security-policy", "sandbox; default-src 'none'; frame-ancestors 'none'")
  end
  if is_tls then
    headers:replace("strict-transport-security", "max-age=31536000")
  end
end

local grpc_headers = {
  "grpc-status", "grpc-message", "grpc-status-details-bin", "grpc-encoding", "grpc-accept-encoding", "trailer",
}

-- The transcoder writes errors and messages whatever the method was, and what follows the headers of an answer to HEAD is
-- taken for the next answer of the connection.
local function drop_body(handle)
  local length = handle:headers():get("content-length")
  local body = handle:body()
  if body ~= nil and body:length() > 0 then
    body:setBytes("")
    if length ~= nil then
      handle:headers():replace("content-length", length)
    end
  end
end

-- The server's metadata has what gRPC cannot express:
--   x-http-status      the HTTP status, such as 206; 200 if unset
--   x-content-length   the exact length of the body
--   x-content-type     the media type, for responses without an HttpBody message
function envoy_on_response(handle)
  if is_grpc(handle) then
    return
  end
  local headers = handle:headers()
  harden(headers)
  local status = headers:get("x-http-status")
  if status ~= nil and string.find(status, "^[2-5]%d%d$") then
    headers:replace(":status", status)
  end
  local length = headers:get("x-content-length")
  if length ~= nil and string.find(length, "^%d+$") then
    headers:replace("content-length", length)
  end
  -- Models change, and not every caller may see them.
  if headers:get("cache-control") == nil and noted(handle, "is_typed") then
    headers:add("cache-control", "private, no-cache")
  end
  local media_type = headers:get("x-content-type")
  if media_type ~= nil then
    headers:replace("content-type", media_type)
  end
  status = headers:get(":status")
  if status == "401" and headers:get("www-authenticate") == nil then
    headers:add("www-authenticate", 'Bearer realm="model-registry"')
  end
  local location = headers:get("location")
  if location ~= nil then
    -- Envoy writes the host of the request, which the client chooses.
    headers:replace("location", (string.gsub(location, "^https?://[^/]*", "")))
  end
  if status == "204" or status == "304" or status == "307" then
    headers:remove("content-type")  -- Envoy's default, although there is no body
  end
  for _, name in ipairs({"x-http-status", "x-content-length", "x-content-type"}) do
    headers:remove(name)
  end
  for _, name in ipairs(grpc_headers) do
    headers:remove(name)
  end
  if noted(handle, "is_head") then
    drop_body(handle)
  end
  local trailers = handle:trailers()
  if trailers ~= nil then
    for _, name in ipairs(grpc_headers) do
      trailers:remove(name)
    end
  end
end
