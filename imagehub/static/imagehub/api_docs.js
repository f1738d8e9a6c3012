// Starts Swagger UI with what the page says in its data attributes.
"use strict";

const { schemaUrl, csrfHeader, csrfToken } = document.getElementById("swagger-ui").dataset;

SwaggerUIBundle({
  url: schemaUrl,
  dom_id: "#swagger-ui",
  deepLinking: true,
  presets: [SwaggerUIBundle.presets.apis],
  layout: "BaseLayout",
  requestInterceptor: (request) => {
    // Only for our own origin: the token is nobody else's business.
    const isOurs = new URL(request.url, document.baseURI).origin === location.origin;
    if (isOurs && request.method && request.method !== "GET") {
      request.headers[csrfHeader] = csrfToken;
    }
    return request;
  },
});
