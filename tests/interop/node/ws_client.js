// WebSocket client: node ws_client.js h1|h2 URL. Text, binary, 1 MiB, ping, close code; prints "ok".
'use strict';
const http2 = require('http2');
const { WebSocket } = require('ws');
const [, , way, url] = process.argv;

function check(ws, done) {
  const big = Buffer.alloc(1 << 20, 7);
  const steps = [];
  const fail = why => { console.log('failed: ' + why); process.exit(1); };
  setTimeout(() => fail('late, after ' + steps), 15000).unref();
  ws.on('error', e => fail(e.message));
  ws.on('unexpected-response', (q, r) => fail('status ' + r.statusCode));
  ws.on('message', (data, binary) => {
    if (!binary && data.toString() === 'hello') {
      steps.push('text');
      ws.send(big);
    } else if (binary && data.equals(big)) {
      steps.push('binary');
      ws.ping('p');
    } else {
      fail('an unknown message');
    }
  });
  ws.on('pong', data => { steps.push('pong' + data); ws.close(4001, 'bye'); });
  ws.on('close', (code, reason) => {
    if (steps.join() !== 'text,binary,pongp' || code !== 4001) fail([steps, code, reason].join());
    console.log('ok');
    done();
  });
  const begin = () => ws.send('hello');
  if (ws.readyState === WebSocket.OPEN) begin(); else ws.on('open', begin);
}

if (way === 'h1') {
  check(new WebSocket(url), () => process.exit(0));
} else {
  const session = http2.connect(url, { rejectUnauthorized: false });
  session.on('error', e => { console.log('failed: ' + e.message); process.exit(1); });
  session.once('remoteSettings', settings => {
    if (!settings.enableConnectProtocol) { console.log('failed: no extended CONNECT'); process.exit(1); }
    const stream = session.request({
      ':method': 'CONNECT', ':protocol': 'websocket', ':path': '/ws', 'sec-websocket-version': '13',
    }, { endStream: false });
    stream.on('response', headers => {
      if (headers[':status'] !== 200) { console.log('failed: status ' + headers[':status']); process.exit(1); }
      // Without an address ws has no time to wait for the other's close frame: it would cut after 1 ms (1006).
      const ws = new WebSocket(null, undefined, { autoPong: true, closeTimeout: 30000 });
      ws._isServer = false;
      ws.setSocket(stream, Buffer.alloc(0), { allowSynchronousEvents: true, maxPayload: 1 << 26, skipUTF8Validation: false });
      check(ws, () => process.exit(0));
    });
  });
}
