-- What a stranger's request is refused for, before a byte of its body is read. Before this file stand
-- allowed_hosts    names of ALLOWED_HOSTS, as a set; nil for the default
-- needs_token      whether callers must show a bearer token
-- refusals         reason, message and challenge for a call without a token (missing) and with a malformed one
--                  (malformed)
-- The route says in its metadata which API it belongs to (api: grpc, typed or compat), whether strangers may call
-- it (open), whether its body is JSON (takes_json), and whether that is waited for here (is_buffered); that of /live
-- names the file with the time in it of when the process that watches Envoy was last well (heartbeat).

-- Ids of requests as the server takes them; it would make one of its own for any other, so that the two logs differ.
math.randomseed(os.time() + tonumber(string.match(tostring({}), "0x(%x+)"), 16) % 1000003)

local function request_id(headers)
  local id = headers:get("x-request-id")
  if id ~= nil and #id <= 128 and string.find(id, "^[%w._:/+=-]+$") then
    return id
  end
  local made = string.gsub("xxxxxxxx-xxxx-4xxx-8xxx-xxxxxxxxxxxx", "x", function()
    return string.format("%x", math.random(0, 15))
  end)
  headers:replace("x-request-id", made)
  return made
end

-- The name in an authority (`host:port`, `[::1]:port`), in lower case and without the dot of the root; nil for none.
local function name_of(authority)
  local text = string.lower(authority or "")
  return string.match(text, "^%[([%x:.]+)%]$") or string.match(text, "^%[([%x:.]+)%]:%d+$")
    or string.match(text, "^([%w._-]+)%.$") or string.match(text, "^([%w._-]+)%.:%d+$")
    or string.match(text, "^([%w._-]+)$") or string.match(text, "^([%w._-]+):%d+$")
end

-- A page of another site can have its own name point here (DNS rebinding), but no address, and no name that its owner
-- could not register.
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
  -- *.example.org stands for all names under it.
  local rest = string.match(name, "^[^.]+%.(.+)$")
  while rest ~= nil do
    if allowed_hosts["*." .. rest] then
      return true
    end
    rest = string.match(rest, "^[^.]+%.(.+)$")
  end
  return false
end

-- Host and port, the port left out where it is the scheme's own.
local function place_of(authority)
  return (string.gsub(string.gsub(string.lower(authority), ":80$", ""), ":443$", ""))
end

-- Whether a browser sends the request for a page of another origin. Other clients send none of these headers.
local function is_foreign(headers, method)
  local is_safe = method == "GET" or method == "HEAD"
  local origin = headers:get("origin")
  -- The answer to a safe method is kept from the page by the browser, also one that knows no Sec-Fetch-Site.
  if origin ~= nil and not is_safe then
    local authority = string.match(origin, "^https?://(.+)$")
    if authority == nil or place_of(authority) ~= place_of(headers:get(":authority")) then
      return true
    end
  end
  local site = headers:get("sec-fetch-site")
  if site == nil or site == "same-origin" or site == "none" then
    return false
  end
  -- A link may lead here.
  return not (is_safe and headers:get("sec-fetch-mode") == "navigate" and headers:get("sec-fetch-dest") == "document")
end

local function has_body(headers)
  local length = headers:get("content-length")
  return headers:get("content-type") ~= nil or headers:get("transfer-encoding") ~= nil
    or (length ~= nil and length ~= "0")
end

-- Fields of a protobuf message (https://protobuf.dev/programming-guides/encoding/): bytes, and their length before.
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

-- Answers as the server does, to the letter: google.rpc.Status with ErrorInfo and RequestInfo, and a text in the
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

-- What is wrong with the credentials of a call; nil when the server must judge them.
local function refusal_of(headers)
  local shown = headers:get("authorization")
  if shown == nil then
    return refusals.missing
  end
  local token = string.match(shown, "^[Bb][Ee][Aa][Rr][Ee][Rr] +([%w._~+/-]+=*)$")
  -- Of two, somebody on the way might have judged the other.
  if token == nil or headers:getNumValues("authorization") > 1 then
    return refusals.malformed
  end
end

-- Tokens that the server has recognised: since when, and when they were used last. The server judges each call anyway;
-- this only keeps strangers from it, whose calls would take what those of others need. Each worker has a table of its own.
local recognised, recognised_count = {}, 0
local most_recognised, unused_seconds, recognised_seconds = 10000, 60, 3600

local function is_recognised(shown)
  local found = recognised[shown]
  local now = os.time()
  if found == nil or now - found.used > unused_seconds or now - found.since > recognised_seconds then
    return false
  end
  found.used = now
  return true
end

local function remember(shown)
  if recognised_count >= most_recognised then
    recognised, recognised_count = {}, 0
  end
  recognised_count = recognised_count + (recognised[shown] == nil and 1 or 0)
  recognised[shown] = {since = os.time(), used = os.time()}
end

-- Questions to the server that are under way, each with when it began. A question whose client goes is never heard of
-- again, so that it counts until it would have timed out. A burst of one new caller finds room.
local questions, question_count, next_question, cleared = {}, 0, 0, 0
local most_questions, question_seconds = 128, 2

local function forget_old_questions(now)
  if now == cleared then
    return
  end
  cleared = now
  for question, since in pairs(questions) do
    if now - since > question_seconds then
      questions[question] = nil
      question_count = question_count - 1
    end
  end
end

-- Asks the server whether it knows the bearer of a token, by a call that it refuses after that: nobody has no id.
-- Returns the status of gRPC; nil when there is none, "busy" where too many questions are under way.
local function ask(handle, shown, id)
  local now = os.time()
  forget_old_questions(now)
  if question_count >= most_questions then
    return "busy"
  end
  next_question = next_question + 1
  local question = next_question
  questions[question] = now
  question_count = question_count + 1
  local answer = handle:httpCall("registry", {
    [":method"] = "POST",
    [":path"] = "/modelregistry.v1.ModelService/GetModel",
    [":authority"] = "registry",
    ["content-type"] = "application/grpc",
    ["te"] = "trailers",
    ["authorization"] = shown,
    ["x-request-id"] = id,
  }, "\0\0\0\0\0", question_seconds * 1000)
  if questions[question] ~= nil then
    questions[question] = nil
    question_count = question_count - 1
  end
  return answer["grpc-status"]
end

-- The largest body that is waited for while the server cannot tell whose it is, in bytes.
local small_body = 65536

local function may_be_large(handle, headers)
  -- In parentheses, as get returns nothing where the header is missing, and tonumber wants a value.
  local length = tonumber((headers:get("content-length")) or "")
  if length ~= nil then
    return length > small_body
  end
  return headers:get("transfer-encoding") ~= nil or handle:streamInfo():protocol() == "HTTP/2"
end

-- Answers a call with a well-formed token itself unless it may go on to the server.
local function expect_known(handle, headers, route, api, id)
  local shown = headers:get("authorization")
  if is_recognised(shown) then
    return
  end
  -- Before the question: Envoy's objects end with it.
  local is_held = route:get("is_buffered") and may_be_large(handle, headers)
  local status = ask(handle, shown, id)
  if status == nil then
    status = ask(handle, shown, id)  -- perhaps of another server
  end
  if status == "3" or status == "7" then  -- INVALID_ARGUMENT, or no role
    remember(shown)
  elseif status == "16" then
    refuse(handle, api, id, refusals.malformed)
  elseif status == "14" and not is_held then
    return  -- the server says best what is away
  elseif status == "busy" or status == "8" then
    handle:respond({[":status"] = "429", ["retry-after"] = "1"}, "Too Many Requests")
  else
    handle:respond({[":status"] = "503", ["retry-after"] = "1"}, "Service Unavailable")
  end
end

local silent_seconds = 15

-- Whether the process that watches Envoy has been well lately. Where none does, the file has no name.
local function is_watched(heartbeat)
  if heartbeat == "" then
    return true
  end
  local file = io.open(heartbeat)
  local beat = file and file:read("*n")
  if file then
    file:close()
  end
  return beat ~= nil and os.time() - beat <= silent_seconds
end

local function judge(handle)
  local headers = handle:headers()
  local route = handle:metadata()
  local heartbeat = route:get("heartbeat")
  if heartbeat ~= nil and not is_watched(heartbeat) then
    handle:respond({[":status"] = "503"}, "The process that watches Envoy hangs.")
    return
  end
  local api = route:get("api")
  local method = headers:get(":method")
  local id = request_id(headers)
  local media_type = string.lower(headers:get("content-type") or "")
  local is_grpc = string.find(media_type, "^application/grpc") ~= nil
  handle:streamInfo():dynamicMetadata():set("gateway", "is_grpc", is_grpc)
  handle:streamInfo():dynamicMetadata():set("gateway", "is_typed", api == "typed")
  -- No call: a page of the documentation, a redirect, a path or method that is not there.
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
  -- The transcoder, and the filters that prepare for it, pass gRPC by.
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
  -- A form can send JSON as text to any site, and no browser asks that site before.
  if route:get("takes_json") and headers:get("origin") ~= nil and has_body(headers)
    and string.match(media_type, "^[^;%s]*") ~= "application/json" then
    handle:respond({[":status"] = "415"}, "The body must have the media type application/json.")
    return
  end
  if is_guarded then
    expect_known(handle, headers, route, api, id)
  end
end

function envoy_on_request(handle)
  local worked, problem = pcall(judge, handle)
  if not worked then
    -- Envoy would let the request pass.
    handle:logErr("a request could not be judged: " .. tostring(problem))
    handle:respond({[":status"] = "500"}, "Internal Server Error")
  end
end
