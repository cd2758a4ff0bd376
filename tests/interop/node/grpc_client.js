// gRPC client: node grpc_client.js HOST:PORT [CASE] [CA CERT KEY NAME]. Prints a line for each case: "ok
// NAME" or "failed NAME: why".
'use strict';
const assert = require('assert');
const fs = require('fs');
const path = require('path');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');
const def = loader.loadSync(path.join(__dirname, 'echo.proto'));
const { interop } = grpc.loadPackageDefinition(def);
const [, , target, only, ca, cert, key, name] = process.argv;
const credentials = ca
  ? grpc.credentials.createSsl(fs.readFileSync(ca), key && fs.readFileSync(key), cert && fs.readFileSync(cert))
  : grpc.credentials.createInsecure();
const options = { 'grpc.max_receive_message_length': -1, 'grpc.max_send_message_length': -1 };
if (name) options['grpc.ssl_target_name_override'] = name;
const client = new interop.Echo(target, credentials, options);
const soon = () => ({ deadline: Date.now() + 15000 });
const unary = (note, meta = new grpc.Metadata(), opts = soon()) => new Promise((resolve, reject) => {
  let head, answer;
  const call = client.Unary(note, meta, opts, (e, n) => (e ? reject(e) : (answer = n)));
  call.on('metadata', m => { head = m; });
  call.on('status', s => setImmediate(() => s.code === 0 && resolve({ head, status: s, note: answer })));
});
const fails = (method, opts = soon()) => new Promise(resolve =>
  client[method]({ text: 'x' }, new grpc.Metadata(), opts, (e, n) => resolve(e || { code: 0, n })));
const all = call => new Promise((resolve, reject) => {
  const got = [];
  call.on('data', n => got.push(n));
  call.on('end', () => resolve(got));
  call.on('error', reject);
});

const cases = {
  async unary() { assert.equal((await unary({ text: 'hi', count: 3 })).note.text, 'hi'); },
  async metadata() {
    const meta = new grpc.Metadata();
    meta.set('x-there', 'value');
    meta.set('x-there-bin', Buffer.from([0, 1, 255]));
    const { head, status } = await unary({ text: 'm' }, meta);
    assert.equal(head.get('x-back')[0], 'value');
    assert.deepEqual(head.get('x-back-bin')[0], Buffer.from([0, 1, 255]));
    assert.equal(status.metadata.get('x-end')[0], 'yes');
  },
  async server_streaming() {
    const got = await all(client.Server({ text: 's', count: 500 }, soon()));
    assert.equal(got.length, 500);
    got.forEach((n, i) => assert.equal(n.count, i));
  },
  async client_streaming() {
    const answer = await new Promise((resolve, reject) => {
      const call = client.Client(soon(), (e, n) => (e ? reject(e) : resolve(n)));
      for (let i = 0; i < 300; ++i) call.write({ text: 'a' });
      call.end();
    });
    assert.equal(answer.count, 300);
  },
  async bidi_streaming() {
    // Each message is sent after the answer to the one before: nothing may be held back.
    const call = client.Bidi(soon());
    let count = 0;
    await new Promise((resolve, reject) => {
      call.on('error', reject);
      call.on('data', n => {
        assert.equal(n.count, count++);
        if (count < 100) call.write({ text: 'b', count }); else call.end();
      });
      call.on('end', resolve);
      call.write({ text: 'b', count: 0 });
    });
    assert.equal(count, 100);
  },
  async deadline() {
    const begun = Date.now();
    const e = await fails('Slow', { deadline: begun + 500 });
    assert.equal(e.code, grpc.status.DEADLINE_EXCEEDED);
    assert(Date.now() - begun < 3000);
  },
  async status_and_details() {
    const e = await fails('Fail');
    assert.equal(e.code, grpc.status.FAILED_PRECONDITION);
    assert.equal(e.details, 'no: 100% wrong \u00e9');
    assert.equal(e.metadata.get('x-why')[0], 'because');
    assert.deepEqual(e.metadata.get('grpc-status-details-bin')[0], Buffer.from([8, 5, 18, 2, 104, 105]));
  },
  async unimplemented() {
    const e = await new Promise(resolve => client.makeUnaryRequest('/interop.Echo/Nothing', b => b, b => b,
      Buffer.alloc(0), new grpc.Metadata(), soon(), (err, n) => resolve(err || { code: 0, n })));
    assert.equal(e.code, grpc.status.UNIMPLEMENTED);
  },
  async cancellation() {
    const call = client.Endless({ text: 'e' }, soon());
    const e = await new Promise(resolve => {
      let n = 0;
      call.on('data', () => { if (++n === 3) call.cancel(); });
      call.on('error', resolve);
    });
    assert.equal(e.code, grpc.status.CANCELLED);
  },
  async large_messages() {
    const data = Buffer.alloc(8 << 20, 5);
    const { note } = await unary({ data });
    assert(note.data.equals(data));
  },
  async many_at_once() {
    const all_notes = await Promise.all(Array.from({ length: 200 }, (_, i) => unary({ count: i })));
    all_notes.forEach(({ note }, i) => assert.equal(note.count, i));
  },
  async unavailable() {
    const e = await fails('Unary');
    assert.equal(e.code, grpc.status.UNAVAILABLE, e.code + ' ' + e.details);
  },
};

(async () => {
  const names = only && only !== 'all' ? [only] : Object.keys(cases).filter(n => n !== 'unavailable');
  for (const n of names) {
    try {
      await cases[n]();
      console.log('ok ' + n);
    } catch (e) {
      console.log('failed ' + n + ': ' + String(e.stack || e).split('\n').slice(0, 3).join(' | '));
    }
  }
  process.exit(0);
})();
