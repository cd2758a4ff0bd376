// gRPC server: node grpc_server.js PORT. A line on standard input toggles its health; each cancelled
// Endless call prints "cancelled".
'use strict';
const path = require('path');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');
const load = f => grpc.loadPackageDefinition(loader.loadSync(path.join(__dirname, f), { enums: String }));
const { interop } = load('echo.proto');
const { grpc: { health } } = load('health.proto');
let serving = true;
let checks = 0;

const server = new grpc.Server({ 'grpc.max_receive_message_length': -1, 'grpc.max_send_message_length': -1 });
server.addService(interop.Echo.service, {
  Unary(call, done) {
    const back = new grpc.Metadata();
    back.set('x-back', call.metadata.get('x-there')[0] || 'none');
    for (const bin of call.metadata.get('x-there-bin')) back.set('x-back-bin', bin);
    call.sendMetadata(back);
    const trailers = new grpc.Metadata();
    trailers.set('x-end', 'yes');
    done(null, call.request, trailers);
  },
  Server(call) {
    for (let i = 0; i < call.request.count; ++i) call.write({ text: call.request.text, count: i });
    call.end();
  },
  Client(call, done) {
    let count = 0, text = '';
    call.on('data', note => { ++count; text += note.text; });
    call.on('end', () => done(null, { count, text }));
  },
  Bidi(call) {
    call.on('data', note => call.write({ text: note.text + '!', count: note.count }));
    call.on('end', () => call.end());
  },
  Slow(call, done) { setTimeout(() => done(null, call.request), 10000).unref(); },
  Fail(call, done) {
    const trailers = new grpc.Metadata();
    trailers.set('grpc-status-details-bin', Buffer.from([8, 5, 18, 2, 104, 105]));
    trailers.set('x-why', 'because');
    done({ code: grpc.status.FAILED_PRECONDITION, details: 'no: 100% wrong \u00e9', metadata: trailers });
  },
  Endless(call) {
    const timer = setInterval(() => call.write({ text: 'tick' }), 5);
    call.on('cancelled', () => { clearInterval(timer); console.log('cancelled'); });
  },
});
server.addService(health.v1.Health.service, {
  Check(call, done) {
    if (++checks === 1) console.log('checked');
    done(null, { status: serving ? 'SERVING' : 'NOT_SERVING' });
  },
});
process.stdin.on('data', () => { serving = !serving; console.log('serving ' + serving); });
server.bindAsync('127.0.0.1:' + process.argv[2], grpc.ServerCredentials.createInsecure(), e => {
  if (e) throw e;
  console.log('ready');
});
