-- Rejects requests by their headers, before a byte of the body is read. embedded/envoy_config.py prepends:
-- allowed_hosts    set of the names in ALLOWED_HOSTS; nil for the default rule
-- needs_token      whether callers need a bearer token
-- refusals         reason, message and challenge of a call without a token (missing) and with a malformed one
--                  (malformed)
-- The metadata of a route has its API (api: grpc, typed or compat), and whether it needs no credentials (open), has a
-- JSON body (takes_json) and is buffered (is_buffered). The metadata of /live has the file of the supervisor's last
-- heartbeat (heartbeat).

-- Returns the request id. Replaces an id that the server would not accept, so that the logs of both have the same id.
math.randomseed(os.time() + tonumber(string.match(tostring({}), "0x(%x+)"), 16) % 1000003)

local function request_id(headers)
  local id = headers:get("x-request-id")
  if id ~= nil and #id <= 128 and string.find(id, "^[%w._:/+=-]+$") then
    return id
  end
  local generated = string.gsub("xxxxxxxx-xxxx-4xxx-8xxx-xxxxxxxxxxxx", "x", function()
    return string.format("%x", math.random(0, 15))
  end)
  headers:replace("x-request-id", generated)
  return generated
end

-- Returns the host of an authority (`host:port`, `[::1]:port`), in lower case without a trailing dot; nil for none.
local function name_of(authority)
  local text = string.lower(authority or "")
  return string.match(text, "^%[([%x:.]+)%]$") or string.match(text, "^%[([%x:.]+)%]:%d+$")
    or string.match(text, "^([%w._-]+)%.$") or string.match(text, "^([%w._-]+)%.:%d+$")
    or string.match(text, "^([%w._-]+)$") or string.match(text, "^([%w._-]+):%d+$")
end

-- Prevents DNS rebinding: another site can point its own name at this host, but neither an IP address nor a name that
-- it cannot register.
local function is_host_allowed(name)
  if name == nil then
    return false
  end
  if string.find(name, ":", 1, true) or string.find(name, "^%d+%.%d+%.%d+%.%d+$")
    or name == "localhost" or string.find(name, "%.localhost$") then
    return true
  end
  if allowed_hosts == nil then
    return not string.find(name, ".", 1, true)
  end
  if allowed_hosts["*"] or allowed_hosts[name] then
    return true
  end
  -- *.example.org matches all names below example.org.
  local rest = string.match(name, "^[^.]+%.(.+)$")
  while rest ~= nil do
    if allowed_hosts["*." .. rest] then
      return true
    end
    rest = string.match(rest, "^[^.]+%.(.+)$")
  end
  return false
end

-- Returns host and port, without a default port.
local function host_and_port(authority)
  return (string.gsub(string.gsub(string.lower(authority), ":80$", ""), ":443$", ""))
end

-- Returns whether a browser sends the request for a page of another origin. Other clients send none of these headers.
local function is_foreign(headers, method)
  local is_safe = method == "GET" or method == "HEAD"
  local origin = headers:get("origin")
  -- Every browser keeps the response to a safe method from the page, even one that does not send Sec-Fetch-Site.
  if origin ~= nil and not is_safe then
    local authority = string.match(origin, "^https?://(.+)$")
    if authority == nil or host_and_port(authority) ~= host_and_port(headers:get(":authority")) then
      return true
    end
  end
  local site = headers:get("sec-fetch-site")
  if site == nil or site == "same-origin" or site == "none" then
    return false
  end
  -- A link on another page is allowed.
  return not (is_safe and headers:get("sec-fetch-mode") == "navigate" and headers:get("sec-fetch-dest") == "document")
end

local function has_body(headers)
  local length = headers:get("content-length")
  return headers:get("content-type") ~= nil or headers:get("transfer-encoding") ~= nil
    or (length ~= nil and length ~= "0")
end

-- Encodes a length-delimited field of a protobuf message (https://protobuf.dev/programming-guides/encoding/).
local function field(number, bytes)
  local length, rest = "", #bytes
  while rest >= 128 do
    length, rest = length .. string.char(rest % 128 + 128), math.floor(rest / 128)
  end
  return string.char(number * 8 + 2) .. length .. string.char(rest) .. bytes
end

local function detail(kind, bytes)
  return field(3, field(1, "type.googleapis.com/google.rpc." .. kind) .. field(2, bytes))
end

-- Sends the same response as a server: google.rpc.Status with ErrorInfo and RequestInfo, or a text in the
-- Intel-compatible API.
local function refuse(handle, api, id, refusal)
  local headers = {[":status"] = "401", ["www-authenticate"] = refusal.challenge}
  local body = refusal.message
  if api == "grpc" then
    headers["grpc-status-details-bin"] = handle:base64Escape("\8\16" .. field(2, body)
      .. detail("ErrorInfo", field(1, refusal.reason) .. field(2, "modelregistry"))
      .. detail("RequestInfo", field(1, id)))
  elseif api == "typed" then
    headers["x-content-type"] = "application/json"
    body = string.format(
      '{"code":16,"message":"%s","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"%s",'
        .. '"domain":"modelregistry","metadata":{}},{"@type":"type.googleapis.com/google.rpc.RequestInfo",'
        .. '"request_id":"%s","serving_data":""}]}', body, refusal.reason, id)
  else
    headers["x-content-type"] = "text/plain; charset=utf-8"
    headers["www-authenticate"] = refusals.missing.challenge
    body = body .. "\n"
  end
  handle:respond(headers, body)
end

-- Returns what is wrong with the credentials of a call; nil if the server must verify them.
local function refusal_of(headers)
  local authorization = headers:get("authorization")
  if authorization == nil then
    return refusals.missing
  end
  local token = string.match(authorization, "^[Bb][Ee][Aa][Rr][Ee][Rr] +([%w._~+/-]+=*)$")
  -- With two headers, a proxy in front may have verified the other one.
  if token == nil or headers:getNumValues("authorization") > 1 then
    return refusals.malformed
  end
end

-- Tokens that a server has accepted, with the times of acceptance and of last use. The server verifies each call anyway.
-- This cache keeps calls with invalid tokens away from it, as they would use up its limits. Each worker has its own.
local accepted, accepted_count = {}, 0
local max_accepted, unused_seconds, accepted_seconds = 10000, 60, 3600

local function is_accepted(authorization)
  local entry = accepted[authorization]
  local now = os.time()
  if entry == nil or now - entry.used > unused_seconds or now - entry.since > accepted_seconds then
    return false
  end
  entry.used = now
  return true
end

local function remember(authorization)
  if accepted_count >= max_accepted then
    accepted, accepted_count = {}, 0
  end
  accepted_count = accepted_count + (accepted[authorization] == nil and 1 or 0)
  accepted[authorization] = {since = os.time(), used = os.time()}
end

-- Checks under way, each with its start. If the client goes away, Envoy ends the coroutine, so the check counts until
-- its timeout. The limit leaves room for a burst of a new caller.
local checks, check_count, next_check, cleared = {}, 0, 0, 0
local max_checks, check_seconds = 128, 2

local function forget_old_checks(now)
  if now == cleared then
    return
  end
  cleared = now
  for check, since in pairs(checks) do
    if now - since > check_seconds then
      checks[check] = nil
      check_count = check_count - 1
    end
  end
end

-- Checks a token by a call that a server rejects as invalid after authentication, because it has no id.
-- Returns the gRPC status; nil if there is none, "busy" if too many checks are under way.
local function check_token(handle, authorization, id)
  local now = os.time()
  forget_old_checks(now)
  if check_count >= max_checks then
    return "busy"
  end
  next_check = next_check + 1
  local check = next_check
  checks[check] = now
  check_count = check_count + 1
  local response = handle:httpCall("registry", {
    [":method"] = "POST",
    [":path"] = "/modelregistry.v1.ModelService/GetModel",
    [":authority"] = "registry",
    ["content-type"] = "application/grpc",
    ["te"] = "trailers",
    ["authorization"] = authorization,
    ["x-request-id"] = id,
  }, "\0\0\0\0\0", check_seconds * 1000)
  if checks[check] ~= nil then
    checks[check] = nil
    check_count = check_count - 1
  end
  return response["grpc-status"]
end

-- The largest body that is buffered while no server can check the token, in bytes.
local small_body = 65536

local function may_be_large(handle, headers)
  -- The inner parentheses turn the missing result of a missing header into nil.
  local length = tonumber((headers:get("content-length")) or "")
  if length ~= nil then
    return length > small_body
  end
  return headers:get("transfer-encoding") ~= nil or handle:streamInfo():protocol() == "HTTP/2"
end

-- Lets a call with a well-formed token pass if a server accepts the token, and responds otherwise.
local function require_accepted_token(handle, headers, route, api, id)
  local authorization = headers:get("authorization")
  if is_accepted(authorization) then
    return
  end
  -- Before the check, during which Envoy's objects become invalid.
  local is_buffered_and_large = route:get("is_buffered") and may_be_large(handle, headers)
  local status = check_token(handle, authorization, id)
  if status == nil then
    status = check_token(handle, authorization, id)  -- possibly at another server
  end
  if status == "3" or status == "7" then  -- INVALID_ARGUMENT, or PERMISSION_DENIED: the token is valid
    remember(authorization)
  elseif status == "16" then
    refuse(handle, api, id, refusals.malformed)
  elseif status == "14" and not is_buffered_and_large then
    return  -- the server's own error is more precise
  elseif status == "busy" or status == "8" then
    handle:respond({[":status"] = "429", ["retry-after"] = "1"}, "Too Many Requests")
  else
    handle:respond({[":status"] = "503", ["retry-after"] = "1"}, "Service Unavailable")
  end
end

local max_heartbeat_age = 15

-- Returns whether Envoy's supervisor has written a heartbeat lately. Without a supervisor, the file's name is empty.
local function is_supervised(heartbeat)
  if heartbeat == "" then
    return true
  end
  local file = io.open(heartbeat)
  local last = file and file:read("*n")
  if file then
    file:close()
  end
  return last ~= nil and os.time() - last <= max_heartbeat_age
end

local function check_request(handle)
  local headers = handle:headers()
  local route = handle:metadata()
  local heartbeat = route:get("heartbeat")
  if heartbeat ~= nil and not is_supervised(heartbeat) then
    handle:respond({[":status"] = "503"}, "The supervisor of Envoy does not respond.")
    return
  end
  local api = route:get("api")
  local method = headers:get(":method")
  local id = request_id(headers)
  local media_type = string.lower(headers:get("content-type") or "")
  local is_grpc = string.find(media_type, "^application/grpc") ~= nil
  handle:streamInfo():dynamicMetadata():set("gateway", "is_grpc", is_grpc)
  handle:streamInfo():dynamicMetadata():set("gateway", "is_typed", api == "typed")
  handle:streamInfo():dynamicMetadata():set("gateway", "is_head", method == "HEAD")
  -- Not a call: a page, a redirect, or an unknown path or method.
  if api == nil then
    return
  end
  if not is_host_allowed(name_of(headers:get(":authority"))) then
    handle:respond({[":status"] = "421"}, "The host in the `Host` header is not allowed (ALLOWED_HOSTS).")
    return
  end
  if is_foreign(headers, method) then
    handle:respond({[":status"] = "403"}, "Requests from pages of other origins are not allowed.")
    return
  end
  -- The transcoder and the filters before it ignore gRPC requests, even on paths of the JSON API.
  if is_grpc and api ~= "grpc" then
    handle:respond({[":status"] = "415"}, "Send gRPC to the path of a gRPC method.")
    return
  end
  local is_guarded = needs_token and not route:get("open")
  local refusal = is_guarded and refusal_of(headers)
  if refusal then
    refuse(handle, api, id, refusal)
    return
  end
  -- A form of another site can send JSON as text/plain, for which browsers make no preflight request.
  if route:get("takes_json") and headers:get("origin") ~= nil and has_body(headers)
    and string.match(media_type, "^[^;%s]*") ~= "application/json" then
    handle:respond({[":status"] = "415"}, "The body must have the media type application/json.")
    return
  end
  if is_guarded then
    require_accepted_token(handle, headers, route, api, id)
  end
end

function envoy_on_request(handle)
  local succeeded, problem = pcall(check_request, handle)
  if not succeeded then
    -- After an error in a filter, Envoy would let the request pass.
    handle:logErr("could not check a request: " .. tostring(problem))
    handle:respond({[":status"] = "500"}, "Internal Server Error")
  end
end
