// Requests to the gateway. The session is a cookie that scripts cannot read.

export class Refused extends Error {
  constructor(status, words) {
    super(words);
    this.status = status;
  }
}

function words(answer, status) {
  if (Array.isArray(answer?.detail)) {
    return answer.detail.map((item) => `${(item.loc ?? []).filter((part) => part !== "body").join(".")}: ${item.msg}`).join("; ");
  }
  return answer?.detail ?? answer?.title ?? `The gateway answered with status ${status}.`;
}

export async function ask(method, path, body) {
  const headers = body === undefined ? {} : { "content-type": "application/json" };
  let response;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
    });
  } catch {
    throw new Refused(0, "The gateway does not answer.");
  }
  const text = await response.text();
  let answer = null;
  try {
    answer = text ? JSON.parse(text) : null;
  } catch {
    answer = { detail: text.slice(0, 400) };
  }
  if (!response.ok) {
    if (response.status === 401 && !path.startsWith("/console/session")) window.dispatchEvent(new Event("signed-out"));
    throw new Refused(response.status, words(answer, response.status));
  }
  return answer;
}
