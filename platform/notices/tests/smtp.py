# A server of mail for tests: python3 smtp.py DIRECTORY MODE [CERTIFICATE KEY]
#
# MODE is plain, starttls, smtps, refuse (it takes no recipient) or hang (it never answers). It prints its port, and puts each mail into
# DIRECTORY, its envelope first. It ends when its standard input does. TLS wants the account shop with the password secret.
import asyncio
import os
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult

directory, mode = sys.argv[1:3]


class Handler:
    count = 0

    async def handle_RCPT(self, server, session, envelope, address, options):
        if mode == "refuse" and address.startswith("nobody"):
            return "550 there is no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        Handler.count += 1
        name = os.path.join(directory, f"{Handler.count:03}")
        with open(name + ".part", "wb") as file:
            who = f"{session.auth_data.login.decode() if session.auth_data else '-'}"
            file.write(f"{who} {envelope.mail_from} {' '.join(envelope.rcpt_tos)}\n".encode())
            file.write(envelope.content)
        os.rename(name + ".part", name)
        return "250 OK"


def authenticate(server, session, envelope, mechanism, data):
    good = (data.login, data.password) == (b"shop", b"secret")
    return AuthResult(success=good, auth_data=data)


class Silent(asyncio.Protocol):
    pass


def context():
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(sys.argv[3], sys.argv[4])
    return made


def factory():
    if mode == "hang":
        return Silent()
    more = {}
    if mode in ("starttls", "smtps"):
        more = {"authenticator": authenticate, "auth_required": True, "auth_require_tls": mode == "starttls"}
    if mode == "starttls":
        more |= {"tls_context": context(), "require_starttls": True}
    return SMTP(Handler(), hostname="mail", **more)


async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(factory, "127.0.0.1", 0, ssl=context() if mode == "smtps" else None)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


asyncio.run(main())
