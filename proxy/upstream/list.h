// An intrusive doubly linked list: putting in and taking out allocate nothing and cost O(1). An
// object is in at most one list for each Tag that it derives a node for, and leaves it when it is
// destroyed.
#pragma once

namespace edgemesh::proxy {

template <class T, class Tag>
class List;

template <class T, class Tag = void>
class ListNode {
 public:
  ListNode() = default;
  ListNode(const ListNode&) = delete;
  ListNode& operator=(const ListNode&) = delete;
  bool linked() const { return next_ != nullptr; }
  void unlink() {
    if (next_ == nullptr) return;
    previous_->next_ = next_;
    next_->previous_ = previous_;
    previous_ = next_ = nullptr;
  }

 protected:
  ~ListNode() { unlink(); }

 private:
  friend class List<T, Tag>;
  ListNode* previous_ = nullptr;
  ListNode* next_ = nullptr;
};

template <class T, class Tag = void>
class List {
 public:
  using Node = ListNode<T, Tag>;
  List() { clear(); }
  ~List() {
    while (!empty()) front()->Node::unlink();
    head_.previous_ = head_.next_ = nullptr;
  }
  List(const List&) = delete;
  List& operator=(const List&) = delete;

  bool empty() const { return head_.next_ == &head_; }
  T* front() const { return object(head_.next_); }  // null when empty
  T* back() const { return object(head_.previous_); }
  T* after(const T& item) const { return object(static_cast<const Node&>(item).next_); }
  void push_front(T& item) { insert(item, head_.next_); }
  void push_back(T& item) { insert(item, &head_); }

 private:
  void clear() { head_.previous_ = head_.next_ = &head_; }
  T* object(Node* node) const { return node == &head_ ? nullptr : static_cast<T*>(node); }
  void insert(T& item, Node* before) {
    Node& node = item;
    node.unlink();
    node.previous_ = before->previous_;
    node.next_ = before;
    before->previous_->next_ = &node;
    before->previous_ = &node;
  }
  struct Head : Node {};
  mutable Head head_;
};

}  // namespace edgemesh::proxy
