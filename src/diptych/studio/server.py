"""The server: pages, pictures and JSON on one address, for its own page alone.

Refused: another Host than this machine's (DNS rebinding), another site's requests, bodies that are
no JSON, and, where others can reach the address, requests without the token.
"""

from __future__ import annotations

import errno
import hmac
import secrets
import shutil
import socket
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from diptych.align.ladder.rungs import LADDER
from diptych.backends import BACKENDS
from diptych.config.load import preset_names
from diptych.errors import MachineError, UserError, nearest, one_line
from diptych.files import machine_faults, parse_json
from diptych.studio import asked, page
from diptych.studio.desk import Desk, Keeper
from diptych.studio.folders import Folders
from diptych.studio.panel import Panel
from diptych.studio.quality import tables
from diptych.weights.find import find_weights, zoo_names

LOOPBACK = ("localhost", "127.0.0.1", "::1")
MOST_BODY = 25_000_000
ASSETS = {"studio.js": "text/javascript", "wipe.js": "text/javascript",
          "plotly.js": "text/javascript"}  # fmt: skip
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
# A report is somebody's file: its scripts run, but as a site of their own.
REPORT_POLICY = (
    "sandbox allow-scripts allow-popups; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
)
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Studio:
    """Everything behind the page: folders, panels, the queue."""

    def __init__(self, folders: Sequence[Path], device: str = "auto", language: str = "en") -> None:
        self.folders = Folders(folders)
        self.device, self.language = device, language
        self._traces: Path | None = None
        self.panels = {
            name: Panel(name, device, self._environment if name == "ladder" else dict)
            for name in (*BACKENDS, "ladder")
        }
        self.desk = Desk(self.panels)
        self.keeper = Keeper(self.desk, BACKENDS)

    def _environment(self) -> dict[str, str]:
        """The ladder's traces go below the first folder, until the studio ends."""
        if self._traces is None:
            root = self.folders.roots[0]
            with machine_faults(f"{root}: the ladder's traces"):
                self._traces = Path(tempfile.mkdtemp(prefix=".diptych-studio-", dir=root))
        return {"TMPDIR": str(self._traces)}

    def close(self) -> None:
        """End all work, and every process."""
        self.keeper.close()
        self.desk.close()
        if self._traces is not None:
            shutil.rmtree(self._traces, ignore_errors=True)

    def state(self) -> dict[str, Any]:
        """The panels and the queue."""
        self.keeper.visit()
        return {
            "panels": {name: panel.view() for name, panel in self.panels.items()},
            "idle": self.desk.idle,
        }

    def models(self) -> list[dict[str, str]]:
        """The models to choose from."""
        first = sorted(zoo_names(), key=lambda name: name != "mnist-torch")  # it has a table
        found = [{"name": f"zoo:{name}", "title": f"zoo:{name}"} for name in first]
        return found + [
            {"name": each.name, "title": self.folders.title(each.name)}
            for each in self.folders.of("model")
        ]

    def model(self, name: str) -> dict[str, Any]:
        """A model's facts, and its tables of steps against quality."""
        source = self.folders.model(name)
        found = find_weights(source)
        facts = found.facts()
        sha = facts["weights_sha256"]
        data = found.config.data
        return {
            "classes": found.config.model.num_classes,
            "timesteps": found.config.diffusion.timesteps,
            "shape": list(data.shape),
            "guided": bool(found.sampler and found.sampler.get("guide")),
            "sampler": found.sampler,
            "weights_sha256": sha,
            "from": facts["weights_from"],
            "note": found.note,
            "quality": tables(sha, found.config, self.folders.sweeps(sha)),
        }

    def things(self) -> dict[str, Any]:
        """Runs, sample folders and reports."""

        def named(kind: str) -> list[dict[str, str]]:
            return [
                {"name": each.name, "title": self.folders.title(each.name)}
                for each in self.folders.of(kind)
            ]

        return {
            "runs": self.folders.runs(),
            "samples": named("samples"),
            "reports": named("report"),
            "left_out": self.folders.left_out,
        }

    def put(self, tree: Any) -> dict[str, Any]:
        """Queue the job of a request."""
        request = asked.checked(tree)
        if isinstance(request, asked.Ladder):
            if request.preset not in preset_names():
                known = nearest(request.preset, preset_names())
                raise UserError(f"preset: '{request.preset}' is not known{known}")
            for name in request.rungs:
                if name not in LADDER:
                    raise UserError(f"rungs: '{name}' is not known{nearest(name, list(LADDER))}")
            content = request.model_dump()
            content["device"] = "cpu" if self.device == "auto" else self.device
            job = self.desk.put(content, ("ladder",), request.preset)
        else:
            content = request.model_dump(exclude={"panels", "settings"})
            content["source"] = self.folders.model(request.source)
            content["settings"] = request.settings.given()
            if isinstance(request, asked.Between):
                content["seed"] = request.seeds[0]
            panels = tuple(dict.fromkeys(request.panels))
            job = self.desk.put(content, panels, content["source"])
        return self.desk.view(job)


def app(studio: Studio, token: str | None = None, port: int = 0) -> ASGIApp:
    """The ASGI application; with a token it answers on any host, to those who have it."""

    def json_of(function: Callable[[Request], Any]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            return JSONResponse(await run_in_threadpool(function, request))

        return answer

    def asked_for(request: Request, key: str) -> str:
        value = request.query_params.get(key)
        if not value:
            raise UserError(f"{key}: missing in the request")
        return value

    def job_of(request: Request) -> Any:
        number = request.path_params["number"][:18]  # no longer one is a job's
        return studio.desk.job(int(number) if number.isdecimal() else 0)

    def stop(request: Request) -> Any:
        studio.desk.stop(job_of(request))
        return studio.desk.view(job_of(request))

    def picture(request: Request) -> Response:
        found = job_of(request).pictures.get(request.path_params["name"])
        if found is None:
            raise UserError(f"no picture '{request.path_params['name'][:60]}' of this job")
        return Response(found, media_type="image/png")

    def grid(request: Request) -> Response:
        found = studio.folders.picture(asked_for(request, "of"), asked_for(request, "file"))
        return Response(found, media_type="image/png")

    def report(request: Request) -> Response:
        found = studio.folders.page(asked_for(request, "of"))
        return HTMLResponse(found, headers={"content-security-policy": REPORT_POLICY})

    def index(request: Request) -> Response:
        return HTMLResponse(page.render(studio.language))

    def asset(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in ASSETS:
            raise UserError("no such part of the page")
        return Response(page.asset(name), media_type=ASSETS[name])

    async def put(request: Request) -> Response:
        body = await _body(request)
        try:
            tree = parse_json(body)
        except (ValueError, UnicodeDecodeError) as error:
            raise UserError(f"the request is not JSON ({one_line(str(error))[:100]})") from error
        return JSONResponse(await run_in_threadpool(studio.put, tree))

    def runs_asked(request: Request) -> Any:
        return studio.folders.settings(request.query_params.getlist("run")[:8])

    routes = [
        Route("/", index),
        Route("/assets/{name}", asset),
        Route("/api/state", json_of(lambda _: studio.state())),
        Route("/api/models", json_of(lambda _: studio.models())),
        Route("/api/model", json_of(lambda r: studio.model(asked_for(r, "source")))),
        Route("/api/things", json_of(lambda _: studio.things())),
        Route("/api/curve", json_of(lambda r: studio.folders.curve(asked_for(r, "run")))),
        Route("/api/settings", json_of(runs_asked)),
        Route("/api/jobs", put, methods=["POST"]),
        Route("/api/jobs/{number}", json_of(lambda r: studio.desk.view(job_of(r)))),
        Route("/api/jobs/{number}/stop", json_of(stop), methods=["POST"]),
        Route("/api/jobs/{number}/{name}.png", picture),
        Route("/grid", grid),
        Route("/report", report),
    ]

    async def told(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": str(error)}, 400 if isinstance(error, UserError) else 500)

    handlers = dict.fromkeys((UserError, MachineError, OSError), told)  # OSError: a file has gone
    inner = Starlette(routes=routes, exception_handlers=handlers)
    return Guard(inner, token, f"diptych-studio-{port}")


async def _body(request: Request) -> bytes:
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind != "application/json":
        raise UserError("the request is not JSON")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_BODY:
            raise UserError("the request is larger than 25 MB; give a smaller picture")
    return bytes(body)


class Guard:
    """Lets only the page's own requests through, and adds headers to every answer."""

    def __init__(self, inner: ASGIApp, token: str | None, cookie: str) -> None:
        self.inner, self.token, self.cookie = inner, token, cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.inner(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        fault = self._fault(scope, headers, given)
        new = b""
        if self.token and not fault and self._same(given):
            new = f"{self.cookie}={self.token}; HttpOnly; SameSite=Strict; Path=/".encode()

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [*message["headers"], *HEADERS]
                if not any(name == b"content-security-policy" for name, _ in own):
                    own.append((b"content-security-policy", POLICY.encode()))
                if new:
                    own.append((b"set-cookie", new))
                message = {**message, "headers": own}
            await send(message)

        if fault:
            await PlainTextResponse(fault, 403)(scope, receive, sent)
        else:
            await self.inner(scope, receive, sent)

    def _same(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), (self.token or "").encode())

    def _fault(self, scope: Scope, headers: Headers, given: str) -> str:
        """Reason to refuse a request; "" if there is none."""
        host = headers.get("host", "")
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:  # no address
            name = None
        if self.token is None and name not in LOOPBACK:
            return "refused: another host than this machine; open the address of the terminal"
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return "refused: a request of another site"
        away = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        if away and not (scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"):
            return "refused: a request of another site"
        if self.token is not None:
            cookies = headers.get("cookie", "").split(";")
            kept = dict(part.strip().partition("=")[::2] for part in cookies).get(self.cookie, "")
            if not (self._same(given) or self._same(kept)):
                return (
                    "refused: no token; open the address that the terminal shows, with its ?token="
                )
        return ""


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises UserError if the address is taken or is none of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen()  # a browser that comes before the server waits
    except (OSError, OverflowError) as error:
        found.close()
        reason = getattr(error, "strerror", None) or str(error)
        advice = "--host, such as 127.0.0.1 or 0.0.0.0"
        if getattr(error, "errno", None) in (errno.EADDRINUSE, errno.EACCES):
            advice = "--port (0 takes any that is free)"
        raise UserError(f"{host}:{port}: {reason}; give another {advice}") from error
    return found


def new_token(host: str) -> str | None:
    """A token, unless only this machine can reach the address."""
    return None if host in LOOPBACK else secrets.token_urlsafe(24)


def address(host: str, port: int, token: str | None) -> str:
    """The address to open."""
    name = host if host not in ("0.0.0.0", "::") else socket.gethostname()
    name = f"[{name}]" if ":" in name else name
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")


def server_of(studio: Studio, token: str | None, port: int) -> Any:
    """A uvicorn server; `run(sockets=[...])` serves until it is told to stop."""
    import uvicorn

    config = uvicorn.Config(
        app(studio, token, port),
        log_level="warning",
        access_log=False,
        ws="none",
        lifespan="off",
        timeout_graceful_shutdown=2,
        server_header=False,
    )
    return uvicorn.Server(config)
