// The origin of the interoperability cases: HTTP/1.1 (with WebSockets and CONNECT), HTTP/2 with WebSockets
// (RFC 8441), on the two ports given.
'use strict';
const http = require('http');
const http2 = require('http2');
const net = require('net');
const crypto = require('crypto');
const { WebSocketServer, WebSocket } = require('ws');

const PAGE = `<!doctype html><title>waiting</title><body><pre id=out></pre><script>
const out = [];
const show = t => { out.push(t); document.getElementById('out').textContent = out.join(' '); };
(async () => {
  const r = await fetch('/bytes/100000');
  show('fetched=' + (await r.arrayBuffer()).byteLength);
  const e = await fetch('/echo', {method: 'POST', body: 'from the page'});
  show('echoed=' + (await e.text()).length);
  const ws = new WebSocket(location.origin.replace('http', 'ws') + '/ws');
  ws.onopen = () => ws.send('browser');
  ws.onerror = () => show('wserror');
  ws.onmessage = m => { show('ws=' + m.data); ws.close(); };
  await fetch('/slow');  // the browser's virtual time waits for a fetch, not for a WebSocket
})().catch(e => show('error=' + e));
</script>`;

function handle(req, res) {
  const path = (req.url || '').split('?')[0];
  const digest = crypto.createHash('sha256');
  if (path.startsWith('/bytes/')) {
    const n = Number(path.slice(7));
    res.setHeader('content-length', n);
    if (req.method === 'HEAD') return res.end();
    const piece = Buffer.alloc(65536, 'x');
    let left = n;
    const more = () => {
      while (left > 0) {
        const part = piece.subarray(0, Math.min(left, piece.length));
        left -= part.length;
        if (!res.write(part)) return res.once('drain', more);
      }
      res.end();
    };
    return more();
  }
  if (path === '/page') {
    res.setHeader('content-type', 'text/html');
    return res.end(PAGE);
  }
  if (path === '/slow') return setTimeout(() => res.end('slow'), 2000);
  if (path === '/trailers') {
    res.writeHead(200, { trailer: 'x-sum' });
    res.write('body');
    res.addTrailers({ 'x-sum': '42' });
    return res.end();
  }
  if (path.startsWith('/status/')) {
    res.statusCode = Number(path.slice(8));
    return res.end();
  }
  let size = 0;
  const parts = [];
  req.on('data', d => { size += d.length; digest.update(d); if (path === '/echo') parts.push(d); });
  req.on('end', () => {
    if (path === '/echo') return res.end(Buffer.concat(parts));
    res.setHeader('content-type', 'application/json');
    res.end(JSON.stringify({
      method: req.method, url: req.url, version: req.httpVersion, size, sha256: digest.digest('hex'),
      headers: req.headers, trailers: req.trailers,
    }));
  });
}

const server = http.createServer({ maxHeaderSize: 65536 }, handle);
server.on('checkContinue', (req, res) => { res.writeContinue(); handle(req, res); });
server.on('connect', (req, socket, head) => {
  const [host, port] = req.url.split(':');
  const to = net.connect(Number(port), host, () => {
    socket.write('HTTP/1.1 200 OK\r\n\r\n');
    to.write(head);
    to.pipe(socket).pipe(to);
  });
  to.on('error', () => socket.destroy());
  socket.on('error', () => to.destroy());
});
const echo = ws => ws.on('message', (data, binary) => ws.send(data, { binary }));
new WebSocketServer({ server }).on('connection', echo);

const server2 = http2.createServer({ settings: { enableConnectProtocol: true } }, (req, res) => {
  if (req.method !== 'CONNECT') handle(req, res);
});
server2.on('connect', () => {});  // else the answer would be 405
server2.on('stream', (stream, headers) => {
  if (headers[':method'] !== 'CONNECT') return;
  if (headers[':protocol'] !== 'websocket') return stream.respond({ ':status': 400 }, { endStream: true });
  stream.respond({ ':status': 200 });
  const ws = new WebSocket(null, undefined, { autoPong: true, closeTimeout: 30000 });
  ws.setSocket(stream, Buffer.alloc(0), { allowSynchronousEvents: true, maxPayload: 1 << 26, skipUTF8Validation: false });
  ws.on('error', () => {});
  echo(ws);
});
server.listen(Number(process.argv[2]), '127.0.0.1', () =>
  server2.listen(Number(process.argv[3]), '127.0.0.1', () => console.log('ready')));
